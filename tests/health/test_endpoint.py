"""The endpoint: who gets which answer, and what it does with those who do not behave."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from penstock.cli.exits import Exit
from penstock.health.endpoint import MOST_CONNECTIONS, REQUEST_S
from tests.cli.program import Folder, until
from tests.health.watched import get, watched

TOKEN = "S3CR3T-canary-of-the-endpoint"


def test_without_a_port_nothing_listens(folder: Folder) -> None:
    with folder.running("shop") as service:
        service.wait_line('"consuming"')
        service.terminate()
        assert service.wait() == 0
    assert not [line for line in service.log if "probes and metrics" in line]


def test_a_service_is_live_and_ready_until_it_stops(folder: Folder) -> None:
    with watched(folder, "shop", "--only", "slow") as service:
        service.until_ready()
        assert service.get("/live").state["state"] == "live"
        assert service.get("/ready").state == {"state": "ready"}
        assert service.get("/nothing").status == 404

        folder.penstock("publish", "slow", '{"s": 3600}')
        service.service.wait_line("slow begins")
        service.service.terminate()
        service.until_not_ready("it is stopping")
        assert service.get("/live").status == 200
        service.service.hurry()
        assert service.service.wait() == 0
    with pytest.raises(OSError, match="refused"):
        service.get("/live")


def test_it_only_answers_what_changes_nothing(folder: Folder) -> None:
    with watched(folder) as service, socket.create_connection(("127.0.0.1", service.port)) as peer:
        peer.sendall(b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.1 405 ")


def test_a_token_keeps_all_but_the_status_codes_from_strangers(folder: Folder) -> None:
    folder.environment["PENSTOCK_HTTP__TOKEN"] = TOKEN
    with watched(folder, token=TOKEN) as service:
        service.until_ready()
        stranger = [service.get(path) for path in ("/live", "/ready", "/metrics")]
        wrong = service.get("/metrics", Authorization=f"Bearer {TOKEN}x")
        known = service.get("/live", Authorization=f"Bearer {TOKEN}")
        assert "penstock_ready" in service.metrics()
        service.service.terminate()
        assert service.service.wait() == 0

    assert [(answer.status, answer.body) for answer in stranger] == [
        (200, '{"state":"live"}'),
        (200, '{"state":"ready"}'),
        (401, "a token is needed\n"),
    ]
    assert wrong.status == 401
    assert "loop_lag_s" in known.state
    assert TOKEN not in "".join(service.service.log)
    shown = folder.penstock("check", "shop")
    assert TOKEN not in shown.stdout + shown.stderr
    assert "http.token" in shown.stdout


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"HOST": "0.0.0.0"}, "0.0.0.0 can be reached from other machines: set http.token"),
        ({"HOST": "example.org"}, "set http.token"),
        ({"TOKEN": "short"}, "at least 16"),
        ({"HOST": "192.0.2.1", "TOKEN": TOKEN}, "cannot be listened on"),
    ],
    ids=str,
)
def test_what_would_not_be_safe_or_cannot_be_is_refused(
    folder: Folder, variables: dict[str, str], said: str
) -> None:
    names = {f"PENSTOCK_HTTP__{name}": value for name, value in variables.items()}
    done = folder.penstock("run", "shop", "--http-port", "0", **names)

    assert done.returncode == Exit.CONFIGURATION
    assert said in done.stderr
    assert TOKEN not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_the_extra_the_refusal_says_what_to_install(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "uvicorn").mkdir(parents=True)
    text = "raise ModuleNotFoundError('No module named uvicorn', name='uvicorn')"
    (tmp_path / "hidden" / "uvicorn" / "__init__.py").write_text(text)

    done = folder.penstock("run", "shop", "--http-port", "0", PYTHONPATH=str(tmp_path / "hidden"))

    assert done.returncode == Exit.CONFIGURATION
    assert "pip install 'penstock[http]'" in done.stderr


def test_a_port_that_is_taken_is_waited_for_while_messages_are_handled(folder: Folder) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with folder.running("shop", "--only", "orders", "--http-port", str(port)) as service:
            service.wait_line("the endpoint's port is taken")
            folder.penstock("publish", "orders", '{"id": 1}')
            folder.wait_note("order 1")
            other.close()
            service.wait_line("probes and metrics are answered")
            until(lambda: get(port, "/ready").status == 200, "a ready service")
            service.terminate()
            assert service.wait() == 0


def test_silent_connections_are_ended_and_bounded_in_number(folder: Folder) -> None:
    with watched(folder) as service, ExitStack() as held:
        address = ("127.0.0.1", service.port)
        peers = [held.enter_context(socket.create_connection(address)) for _ in range(MOST_CONNECTIONS + 5)]
        began_s = time.monotonic()
        for peer in peers:
            peer.settimeout(REQUEST_S * 4)
        # Half a request is none.
        peers[0].sendall(b"GET /live HTTP/1.1\r\nHost:")
        ended = [_is_ended(peer) for peer in peers]

        assert all(ended)
        assert time.monotonic() - began_s >= REQUEST_S / 2
        assert service.get("/live").status == 200


def test_a_head_beyond_all_measure_is_refused(folder: Folder) -> None:
    with watched(folder) as service, socket.create_connection(("127.0.0.1", service.port)) as peer:
        peer.settimeout(10)
        try:
            peer.sendall(b"GET /live HTTP/1.1\r\nX: " + b"x" * 1_000_000)
            answer = peer.recv(100)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        assert service.get("/live").status == 200


def test_a_stop_before_it_consumes_ends_the_endpoint_too(folder: Folder) -> None:
    folder.write("watched.py", "import time\n")
    folder.write("late.py", (folder.path / "shop.py").read_text())
    with folder.running("late", "--http-port", "0") as service:
        line = json.loads(service.wait_line("probes and metrics are answered"))
        service.terminate()
        assert service.wait() == 0
    with pytest.raises(OSError, match="refused"):
        get(line["port"], "/live")


def _is_ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionError:
        return True
