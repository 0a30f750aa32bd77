"""`penstock check --live`, and the health file that it reads."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from penstock.cli.exits import Exit
from penstock.errors import ConfigurationError
from penstock.health.file import (
    STALE_S,
    Health,
    HealthFile,
    default_health_file,
    read_health,
    what_is_wrong,
)
from tests.cli.program import Folder, until


def health(**changes: object) -> Health:
    """A note of this process, fresh."""
    fresh = Health(os.getpid(), "shop", ("orders",), True, time.monotonic(), time.time())
    return msgspec.structs.replace(fresh, **changes)


def test_a_running_service_is_live_and_ready_and_a_stopped_one_is_neither(folder: Folder) -> None:
    assert folder.penstock("check", "shop", "--live").returncode == Exit.NO

    with folder.running("shop", "--only", "slow") as service:
        service.wait_line('"consuming"')
        until(lambda: folder.penstock("check", "shop", "--ready").returncode == Exit.OK, "a ready service")
        live = folder.penstock("check", "shop:app", "--live")
        anyone = folder.penstock("check", "--live")

        # While it drains it is live, and not ready.
        folder.penstock("publish", "slow", '{"s": 3600}')
        service.wait_line("slow begins")
        service.terminate()
        folder.wait_stopping("shop")
        draining = folder.penstock("check", "shop", "--live")
        unready = folder.penstock("check", "shop", "--ready")
        service.hurry()
        assert service.wait() == 0

    assert (live.returncode, anyone.returncode) == (Exit.OK, Exit.OK)
    assert live.stdout == f"shop is live: process {service.process.pid}, consuming 1 queue\n"
    assert (draining.returncode, unready.returncode) == (Exit.OK, Exit.NO)
    assert "live and not ready" in unready.stderr
    after = folder.penstock("check", "shop", "--live")
    assert after.returncode == Exit.NO
    assert "is the service running" in after.stderr


def test_a_killed_service_is_not_live(folder: Folder) -> None:
    with folder.running("shop", "--only", "orders") as service:
        service.wait_line('"consuming"')
        until(lambda: folder.penstock("check", "shop", "--live").returncode == Exit.OK, "a live service")
        service.process.kill()
        service.wait()

        done = folder.penstock("check", "shop", "--live")

    assert done.returncode == Exit.NO
    assert f"its process {service.process.pid} is gone" in done.stderr


def test_a_service_whose_file_is_elsewhere_is_found_by_the_setting(folder: Folder) -> None:
    elsewhere = folder.path / "run" / "health.json"
    elsewhere.parent.mkdir()
    folder.environment["PENSTOCK_SERVICE__HEALTH_FILE"] = str(elsewhere)
    with folder.running("shop", "--only", "orders") as service:
        until(lambda: folder.penstock("check", "--ready").returncode == Exit.OK, "a ready service")
        assert read_health(elsewhere) is not None
        service.terminate()
        assert service.wait() == 0
    assert not elsewhere.exists()


def test_a_loop_that_stands_still_is_not_live() -> None:
    assert what_is_wrong(health()) is None
    stale = what_is_wrong(health(monotonic_s=time.monotonic() - STALE_S - 1))
    assert stale is not None
    assert "has not turned for 11 s" in stale


def test_a_note_from_before_the_machine_was_started_is_nobodys() -> None:
    assert "before the machine was started" in str(what_is_wrong(health(monotonic_s=time.monotonic() + 1000)))


def test_a_process_that_waits_to_be_fetched_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        child.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert "is gone" in str(what_is_wrong(health(pid=child.pid)))


async def test_the_file_is_kept_while_the_loop_turns_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    missing = ["no worker is booted"]
    file = HealthFile(path, application="shop", queues=["a", "b"], why_not_ready=lambda: missing)

    keeping = asyncio.create_task(file.keep())
    await asyncio.sleep(0)
    first = read_health(path)
    missing = []
    file.write()
    second = read_health(path)
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping

    assert first is not None
    assert second is not None
    assert (first.is_ready, second.is_ready) == (False, True)
    assert first.why_not_ready == ("no worker is booted",)
    assert (first.pid, first.queues) == (os.getpid(), ("a", "b"))
    assert not path.exists()


async def test_a_file_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    file = HealthFile(tmp_path / "no" / "health.json", application="shop", queues=[], why_not_ready=list)

    with capture_logs() as lines:
        keeping = asyncio.create_task(file.keep())
        await asyncio.sleep(0)
        assert not keeping.done()
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    assert [line["event"].split(",")[0] for line in lines] == ["the health file cannot be written"]


def test_two_services_that_write_one_file_are_told_to_use_two(tmp_path: Path) -> None:
    path = tmp_path / "health.json"

    async def begin() -> None:
        file = HealthFile(path, application="shop", queues=[], why_not_ready=list)
        keeping = asyncio.create_task(file.keep())
        await asyncio.sleep(0)
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        path.write_bytes(msgspec.json.encode(health(pid=other.pid)))
        with capture_logs() as lines:
            asyncio.run(begin())
        other.communicate(b"\n")

    assert [line["other_pid"] for line in lines] == [other.pid]


def test_a_default_place_that_somebody_else_prepared_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = default_health_file("shop").parent
    (tmp_path / "theirs").mkdir()
    folder.symlink_to(tmp_path / "theirs")

    with pytest.raises(ConfigurationError, match="not a folder of this user alone"):
        HealthFile(None, application="shop", queues=[], why_not_ready=list).write()

    assert list((tmp_path / "theirs").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", '{"pid": "x"}', "\x00"])
def test_what_is_no_health_file_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(text, encoding="utf-8")
    assert read_health(path) is None
