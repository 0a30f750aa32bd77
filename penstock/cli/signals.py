"""Requests by signal, from the first moment of the process to the last: to stop, and to take the workers anew.

```
 remember() ─▶ counted while modules are imported ─▶ forward(...) ─▶ the loop's own handlers ─▶ end() ─▶ ignored
```
At no moment does a signal meet Python's own handlers: one that came a moment too early or too late would end the
process with a traceback, or with the wrong exit code.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
#: One request may come twice: `timeout` and others pass on to us what our process group was sent anyway.
ECHO_S: Final = 0.05


class Stops:
    """The process's stop requests; written by signal handlers, which run in the main thread."""

    def __init__(self) -> None:
        self._had_terminal = False
        self._requests = 0
        self._latest_s = -ECHO_S
        self._signals: list[signal.Signals] = []

    def __repr__(self) -> str:
        return f"<Stops [{self._requests} remembered]>"

    def remember(self) -> None:
        """Count stop requests from now on; harmless when repeated. The second one ends the process at once."""
        self._had_terminal = self._had_terminal or has_terminal()
        for number in (*STOP_SIGNALS, signal.SIGHUP):
            # nohup ignores SIGHUP, and a shell's background job SIGINT: that is their user's wish.
            if number not in self._signals and signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._count_hangup if number == signal.SIGHUP else self._count)
                self._signals.append(number)

    def forward(
        self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None], renew: Callable[[], None]
    ) -> None:
        """Call `stop` on the loop for every stop request, those remembered included, and `renew` for a SIGHUP."""

        def on_signal() -> None:
            if not self._is_echo():
                stop()

        def on_hangup() -> None:
            if self._is_hung_up():
                on_signal()
            else:
                renew()

        for number in self._signals:
            loop.add_signal_handler(number, on_hangup if number == signal.SIGHUP else on_signal)
        for _ in range(self._requests):
            stop()

    def close(self, runner: asyncio.Runner) -> None:
        """Close the runner's loop, which gives its handlers back, without a gap; stop requests are ignored after it."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        try:
            runner.close()
            for number in self._signals:
                signal.signal(number, signal.SIG_IGN)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _count(self, _number: int, _frame: object) -> None:
        if self._is_echo():
            return
        self._requests += 1
        if self._requests > 1:
            # Nothing is consumed yet, so there is nothing to hand back.
            os._exit(0)

    def _count_hangup(self, number: int, frame: object) -> None:
        # A request to take the workers anew comes too early to mean anything: none has been started.
        if self._is_hung_up():
            self._count(number, frame)

    def _is_hung_up(self) -> bool:
        """SIGHUP says that the terminal was closed: a reactor that went on would be nobody's."""
        return self._had_terminal and not has_terminal()

    def _is_echo(self) -> bool:
        now_s = time.monotonic()
        is_echo = now_s - self._latest_s < ECHO_S
        self._latest_s = now_s
        return is_echo


def has_terminal() -> bool:
    """True while this process has a terminal that may be closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


stops: Final = Stops()
