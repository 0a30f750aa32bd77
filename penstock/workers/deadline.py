"""The soft deadline: an exception in the handler, held back while it would cut something in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from penstock.errors import DeadlineExceeded


class SoftDeadline:
    """One for each worker; works in a process's main thread, where Python runs signal handlers.

    It cannot stop C code and a handler can swallow it: the reactor's hard deadline is behind it.
    """

    def __init__(self, *, usable: bool) -> None:
        self._usable = usable
        self._shields = 0
        self._is_armed = False
        self._is_due = False
        self._timeout_s = 0.0

    def install(self) -> None:
        """Take SIGALRM over; where signals cannot be used this does nothing."""
        if self._usable:
            signal.signal(signal.SIGALRM, self._rang)

    def arm(self, timeout_s: float, *, spent_s: float = 0.0) -> None:
        """Raise `DeadlineExceeded` in the handler after so many seconds, of which some are over."""
        if not self._usable:
            return
        self._timeout_s = timeout_s
        self._is_due = False
        self._is_armed = True
        signal.setitimer(signal.ITIMER_REAL, max(timeout_s - spent_s, 0.001))

    def disarm(self) -> None:
        """The handler is over; nothing is raised from here on."""
        if self._is_armed:
            self._is_armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The handler's time stands still in this block: it waits for what is nobody's fault."""
        if not self._is_armed:
            yield
            return
        left_s, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, max(left_s, 0.001))

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold the exception back until the block is over; in another thread than the handler's it means nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._is_due and self._is_armed and not self._shields:
            self._raise()

    def _rang(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_armed:
            return
        if self._shields:
            self._is_due = True
            return
        self._raise()

    def _raise(self) -> None:
        self._is_armed = False
        self._is_due = False
        msg = f"the handler ran longer than its timeout of {self._timeout_s:g} s"
        raise DeadlineExceeded(msg)
