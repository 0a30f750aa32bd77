"""`penstock run` on real parts: rows appear, stops drain, and a worker carries none of the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.program import DEADLINE_S, MODULE, SCRIPT, Folder, until


def test_a_published_message_becomes_a_row_and_sigterm_ends_it_with_0(folder: Folder) -> None:
    with folder.running("shop:app") as service:
        service.wait_line('"consuming"')

        published = folder.penstock("publish", "orders", '{"id": 1}')
        folder.wait_note("order 1")
        service.terminate()

        assert service.wait() == 0
    assert published.returncode == 0, published.stderr
    stopped = service.events()[-1]
    assert (stopped["event"], stopped["acked"], stopped["dead"]) == ("stopped", 1, 0)


def test_it_runs_over_rabbitmq_just_the_same(folder: Folder, amqp_url: str) -> None:
    with folder.running("shop", "--bus", amqp_url, "--only", "orders", "--log-level", "debug") as service:
        service.wait_line('"consuming"')
        published = folder.penstock("publish", "orders", '{"id": 1}', "--bus", amqp_url)
        folder.wait_note("order 1")
        service.terminate(signal.SIGINT)
        assert service.wait() == 0
    assert published.returncode == 0, published.stderr


@pytest.mark.parametrize("command", [(str(SCRIPT),), MODULE], ids=["script", "module"])
def test_a_worker_carries_no_amqp_client_and_no_command_line(
    folder: Folder, command: tuple[str, ...]
) -> None:
    with folder.running("shop", "--only", "modules", command=command) as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "modules", "{}")
        folder.wait_note("modules done")
        service.terminate()
        assert service.wait() == 0

    loaded = {note.removeprefix("module ") for note in folder.notes()}
    assert "penstock.workers.entry" in loaded
    # structlog loads rich's console itself; what only our command line wants must not be there.
    unwanted = {
        "typer",
        "rich.progress",
        "aio_pika",
        "aiormq",
        "penstock.cli",
        "penstock.reactor",
        "penstock.__main__",
    }
    assert loaded & unwanted == set()


def test_a_stop_lets_what_runs_end(folder: Folder) -> None:
    with folder.running("shop", "--only", "slow") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "slow", '{"s": 0.5}')
        service.wait_line("slow begins")

        service.terminate()

        assert service.wait() == 0
    assert folder.notes() == ["slow"]
    assert service.events()[-1]["handed_back"] == 0


def test_a_second_signal_hurries_and_the_message_is_handed_back(folder: Folder) -> None:
    with folder.running("shop", "--only", "slow", "--drain-seconds", "3600") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "slow", '{"s": 3600}', "--id", "long")
        service.wait_line("slow begins")

        service.terminate()
        folder.wait_stopping("shop")
        service.hurry()

        assert service.wait() == 0
    assert folder.notes() == []
    assert service.events()[-1]["handed_back"] == 1
    assert "exists, 1 waiting" in folder.penstock("check", "shop", "--only", "slow").stdout


def test_one_request_that_comes_twice_is_no_hurry(folder: Folder) -> None:
    # `timeout` and others pass on what the terminal has sent to the whole group.
    with folder.running("shop", "--only", "slow") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "slow", '{"s": 0.5}')
        service.wait_line("slow begins")
        service.terminate(signal.SIGINT)
        service.terminate(signal.SIGTERM)
        assert service.wait() == 0
    assert folder.notes() == ["slow"]


def test_what_runs_longer_than_the_drain_is_handed_back(folder: Folder) -> None:
    with folder.running("shop", "--only", "slow", "--drain-seconds", "0.2") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "slow", '{"s": 3600}')
        service.wait_line("slow begins")
        service.terminate()
        assert service.wait() == 0
    assert service.events()[-1]["handed_back"] == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_request_during_the_import_is_not_lost(folder: Folder, number: signal.Signals) -> None:
    # Given an application whose import waits for us
    os.mkfifo(folder.path / "gate")
    folder.write("late.py", "open('gate').read()\nfrom shop import app\n")
    with folder.running("late") as service:
        with (folder.path / "gate").open("w"):
            # When the request comes while it is open, that is: in the middle of the import
            service.terminate(number)
        # Then the import ends, and nothing else begins
        assert service.wait() == 0
    assert not any("consuming" in line for line in service.log)


def test_a_second_request_during_the_import_ends_it_at_once(folder: Folder) -> None:
    os.mkfifo(folder.path / "gate")
    folder.write("late.py", "open('gate').read()\nfrom shop import app\n")
    with folder.running("late") as service, (folder.path / "gate").open("w"):
        service.hurry()
        assert service.wait() == 0


@pytest.mark.parametrize("is_broker", [False, True])
def test_the_log_says_where_messages_come_from(folder: Folder, amqp_url: str, is_broker: bool) -> None:
    where = amqp_url if is_broker else f"sqlite:///{folder.path / 'bus.db'}"
    with folder.running("shop", "--bus", where) as service:
        service.wait_line('"consuming"')
        service.terminate()
        assert service.wait() == 0

    (line,) = [event for event in service.events() if event["event"] == "consuming"]
    assert line["bus"] == where.replace("guest:guest@", "guest@")


def test_the_log_is_json_lines_bound_to_the_message(folder: Folder) -> None:
    with folder.running("shop", "--only", "slow") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "slow", '{"s": 0}', "--id", "m-1")
        service.wait_line("slow begins")
        folder.wait_note("slow")
        service.terminate()
        assert service.wait() == 0
    (line,) = [event for event in service.events() if event["event"] == "slow begins"]
    assert (line["message_id"], line["queue"], line["handler"], line["slot"], line["attempt"]) == (
        "m-1",
        "slow",
        "shop.slow",
        "1",
        1,
    )


def test_a_reader_of_the_log_that_stalls_does_not_stop_the_service(folder: Folder) -> None:
    with folder.running("shop", "--only", "talks", reads_log=False) as service:
        until(lambda: folder.penstock("check", "shop", "--ready").returncode == 0, "a service that is ready")
        folder.write("talks.jsonl", '{"chars": 8000}\n' * 50)
        published = folder.penstock("publish", "talks", "--file", "talks.jsonl")

        # A pipe holds 64 KiB, this was 400.
        until(lambda: folder.notes().count("talked") == 50, "50 messages handled")
        service.terminate()

        assert service.process.wait(DEADLINE_S) == 0
    assert published.returncode == 0, published.stderr


@pytest.mark.parametrize(
    "redirection", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&1 | true", ">/dev/full 2>&1"]
)
def test_a_log_that_nobody_takes_costs_nothing(folder: Folder, redirection: str) -> None:
    script = f"exec {SCRIPT} run shop --only orders --only prints {redirection}"
    with subprocess.Popen(
        ["sh", "-c", script], cwd=folder.path, env=folder.environment, stdin=subprocess.DEVNULL
    ) as shell:
        until(lambda: folder.penstock("check", "shop", "--ready").returncode == 0, "a service that is ready")
        folder.penstock("publish", "orders", '{"id": 1}')
        folder.wait_note("order 1")
        folder.penstock("publish", "prints", "{}")
        folder.wait_note("printed, attempt 1")
        (health,) = folder.temporary.glob("penstock-*/*.json")
        os.kill(json.loads(health.read_bytes())["pid"], signal.SIGTERM)
        assert shell.wait(DEADLINE_S) == 0
    assert (folder.path / "app.db").read_bytes().startswith(b"SQLite format 3")


def test_inline_runs_handlers_in_the_reactors_own_process(folder: Folder) -> None:
    with folder.running("shop", "--inline", "--only", "orders") as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "orders", '{"id": 1}')
        folder.wait_note("order 1")
        service.terminate()
        assert service.wait() == 0
    assert folder.rows() == [("order 1", service.process.pid)]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_without_processes_async_handlers_run(folder: Folder, loop: str) -> None:
    with folder.running("shop", "--processes", "0", "--only", "asy*", "--loop", loop) as service:
        service.wait_line('"consuming"')
        folder.penstock("publish", "async", '{"id": 1}')
        folder.wait_note("async 1")
        service.terminate()
        assert service.wait() == 0
    assert folder.rows() == [("async 1", service.process.pid)]


def test_a_background_job_of_a_shell_stops_on_sigterm_and_leaves_sigint_to_its_user(folder: Folder) -> None:
    script = f"{SCRIPT} run shop --only orders 2>log & echo $!; wait $!; echo $?"
    with subprocess.Popen(
        ["sh", "-c", script], cwd=folder.path, env=folder.environment, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        until(lambda: '"consuming"' in _text(folder.path / "log"), "a service that consumes")
        os.kill(pid, signal.SIGINT)
        folder.penstock("publish", "orders", '{"id": 1}')
        folder.wait_note("order 1")
        os.kill(pid, signal.SIGTERM)
        assert shell.stdout.readline() == "0\n"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
