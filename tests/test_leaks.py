"""The watch over what tests leave behind sees each kind of it."""

import socket
import subprocess
import threading

import pytest

from tests.leaks import Belongings, carrying


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.leaks.PATIENCE_S", 0.0)


def test_a_child_process_is_seen_until_it_has_ended() -> None:
    before = Belongings()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        (left,) = before.left_behind()
        assert left == f"process {child.pid}: cat"
    assert before.left_behind() == []


def test_an_open_socket_is_seen_with_its_address() -> None:
    before = Belongings()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (left,) = before.left_behind()
        assert str(server.getsockname()[1]) in left
    assert before.left_behind() == []


def test_a_thread_is_seen_unless_it_is_a_daemon() -> None:
    before = Belongings()
    end = threading.Event()
    threads = [
        threading.Thread(target=end.wait, name=f"waits-{daemon}", daemon=daemon) for daemon in (True, False)
    ]
    for thread in threads:
        thread.start()
    try:
        assert before.left_behind() == ["thread waits-False"]
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert before.left_behind() == []


def test_an_orphan_is_found_by_the_mark_in_its_environment() -> None:
    # Given a grandchild whose parent has ended, and which ends with its input
    with subprocess.Popen(
        ["/bin/sh", "-c", "exec 3<&0; cat <&3 &"],
        stdin=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", "PENSTOCK_MARK": "here"},
    ) as parent:
        parent.wait(10)
        # Then it is found, though it is nobody's child of ours
        (left,) = carrying("PENSTOCK_MARK", "here")
        assert left.endswith(": cat")
        assert f"{parent.pid}:" not in left
    assert carrying("PENSTOCK_MARK", "elsewhere") == []
