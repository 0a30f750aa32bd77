"""systemd is told what it asked for: readiness, a watchdog's keep-alives, the end, and a line for `systemctl status`.

It is told by the loop: a loop that stands still sends no keep-alive, and systemd starts the service again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final, NoReturn

import structlog

from penstock.health.readiness import Readiness

#: Longest time between two looks at what there is to tell.
LOOK_S: Final = 1.0
#: A start that goes on (it waits for its database, perhaps) asks for so much more time, as often as it looks.
MORE_TIME_S: Final = 15

_log = structlog.get_logger("penstock.health")


class Systemd:
    """Talks to systemd's socket; run `keep` as a task and cancel it to end it.

    `watchdog_s` is how long systemd waits for a keep-alive; None: for ever.
    """

    def __init__(
        self, address: str, readiness: Readiness, *, when_ready: str, watchdog_s: float | None
    ) -> None:
        """`when_ready` is what the service does while it is ready, in words."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._readiness = readiness
        self._when_ready = when_ready
        self._watchdog_s = watchdog_s
        # The loop wakes up a moment late: with a beat of exactly half, a loaded machine would miss it.
        self._look_s = LOOK_S if watchdog_s is None else min(LOOK_S, watchdog_s / 4)
        self._alive_s = 0.0
        self._status = ""
        self._has_started = False
        self._has_stopped = False

    def __repr__(self) -> str:
        return f"<Systemd [{self._status}]>"

    @classmethod
    def from_environment(
        cls, environment: MutableMapping[str, str], readiness: Readiness, *, when_ready: str
    ) -> Systemd | None:
        """The one that the environment names; None when nobody waits for notifications.

        The names are taken out, so that no process of ours speaks in our place.
        """
        watchdog_s = _watchdog_s(environment)
        environment.pop("WATCHDOG_USEC", None)
        environment.pop("WATCHDOG_PID", None)
        address = environment.pop("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        return cls(address, readiness, when_ready=when_ready, watchdog_s=watchdog_s)

    async def keep(self) -> NoReturn:
        """Tell what there is to tell, until cancelled."""
        while True:
            self.tell()
            if self._has_stopped:
                await asyncio.sleep(self._look_s)
            else:
                # The drain may take no longer than a moment: its beginning is told at once.
                await self._readiness.wait_stopping(self._look_s)

    def tell(self) -> None:
        """Send what is new; what systemd does not take is lost, and the service goes on."""
        why_not = self._readiness.why_not()
        lines = []
        if self._readiness.is_stopping:
            if not self._has_stopped:
                lines.append("STOPPING=1")
            self._has_stopped = True
        elif not why_not and not self._has_started:
            lines.append("READY=1")
            self._has_started = True
        elif not self._has_started:
            lines.append(f"EXTEND_TIMEOUT_USEC={MORE_TIME_S * 1_000_000}")
        status = "; ".join((*(why_not or (self._when_ready,)), *self._readiness.warnings())).replace(
            "\n", " "
        )
        if status != self._status:
            lines.append(f"STATUS={status}")
            self._status = status
        now_s = time.monotonic()
        if self._watchdog_s is not None and now_s - self._alive_s >= self._watchdog_s / 2 - self._look_s:
            lines.append("WATCHDOG=1")
            self._alive_s = now_s
        if lines:
            self._send("\n".join(lines))

    def _send(self, text: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode("utf-8", "replace"), self._address)
            except OSError as error:
                _log.debug("systemd did not take a notification", error=str(error), text=text)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        wait_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return wait_s if wait_s > 0 else None
