"""A service as a process with its endpoint on, and what a probe or Prometheus gets from it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.cli.program import Folder, Running, until

APP = """
import ctypes
import time
from typing import Any

from penstock import App, AsyncContext, Context

app = App()


@app.handler("plain")
def plain(payload: dict[str, Any], ctx: Context) -> None:
    pass


@app.handler("blocks")
async def blocks_the_loop(payload: dict[str, Any]) -> None:
    if payload.get("lock"):
        # Called without letting the interpreter's lock go: no thread of this process runs meanwhile.
        ctypes.PyDLL(None).usleep(int(payload["s"] * 1e6))
    else:
        time.sleep(payload["s"])
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint said."""

    status: int
    body: str

    @property
    def state(self) -> dict[str, Any]:
        """A probe's answer."""
        found: dict[str, Any] = json.loads(self.body)
        return found


#: An operator sees each fault within so many seconds.
VISIBLE_S = 5.0


class Watched:
    """A running service."""

    def __init__(self, service: Running, port: int, token: str | None) -> None:
        self.service = service
        self.port = port
        self._token = token

    def get(self, path: str, *, timeout_s: float = 10.0, **headers: str) -> Answer:
        """Ask once; raises `OSError` when no answer comes in time."""
        return get(self.port, path, timeout_s=timeout_s, **headers)

    def metrics(self) -> dict[str, float]:
        """Every sample, as Prometheus writes it: `name{label="value"}`."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        return samples(get(self.port, "/metrics", timeout_s=10.0, **headers).body)

    def until_ready(self) -> None:
        """Wait until the probe says so."""
        until(lambda: self.get("/ready").status == 200, "a ready service")

    def until_not_ready(self, words: str) -> None:
        """Wait until the probe says that it is not, and why; it has to within 5 s, and the metrics say so then, too."""
        began_s = time.monotonic()
        until(lambda: words in self.get("/ready").body, f"a service that is not ready: {words}")
        assert self.metrics()["penstock_ready"] == 0
        assert time.monotonic() - began_s < VISIBLE_S


@contextmanager
def watched(folder: Folder, *words: str, token: str | None = None) -> Iterator[Watched]:
    """`penstock run` with its endpoint on a free port; the application is `APP` unless the words name another.

    It is stopped in order at the end of the block.
    """
    folder.write("watched.py", APP)
    with folder.running(*(words or ("watched",)), "--http-port", "0") as service:
        line = json.loads(service.wait_line("probes and metrics are answered"))
        yield Watched(service, line["port"], token)
        if service.process.poll() is None:
            service.terminate()
            assert service.wait() == 0


def get(port: int, path: str, *, timeout_s: float = 10.0, **headers: str) -> Answer:
    """Ask an endpoint once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    finally:
        connection.close()


def samples(text: str) -> dict[str, float]:
    """What Prometheus understands of a text."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[named(sample.name, sample.labels)] = sample.value
    return found


def named(name: str, labels: Mapping[str, str]) -> str:
    """A sample's name with its labels, in the order of the alphabet."""
    written = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return f"{name}{{{written}}}" if labels else name
