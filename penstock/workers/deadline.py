"""The soft deadline: an exception in the handler, held back while it would cut something in two."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import ClassVar, Final

from penstock.errors import DeadlineExceeded

#: After a deadline that nobody could hear.
_AGAIN_S: Final = 0.001


class SoftDeadline:
    """One for each worker; works in a process's main thread, where Python runs signal handlers.

    It cannot stop C code and a handler can swallow it: the reactor's hard deadline is behind it.
    """

    #: How often, in this process. Whoever calls what keeps exceptions to itself can tell by it that there was one.
    times_raised: ClassVar[int] = 0
    #: The one that has SIGALRM.
    installed: ClassVar[SoftDeadline | None] = None

    def __init__(self, *, usable: bool) -> None:
        self._usable = usable
        self._shields = 0
        self._is_armed = False
        self._is_due = False
        self._is_running = False
        self._timeout_s = 0.0

    def install(self) -> None:
        """Take SIGALRM over; where signals cannot be used this does nothing."""
        if self._usable:
            signal.signal(signal.SIGALRM, self._rang)
            SoftDeadline.installed = self
            sys.unraisablehook = self._hook(sys.unraisablehook)

    def arm(self, timeout_s: float, *, spent_s: float = 0.0) -> None:
        """Raise `DeadlineExceeded` in the handler after so many seconds, of which some are over."""
        if not self._usable:
            return
        self._timeout_s = timeout_s
        self._is_due = False
        self._is_armed = self._is_running = True
        signal.setitimer(signal.ITIMER_REAL, max(timeout_s - spent_s, 0.001))

    def disarm(self) -> None:
        """The handler is over; nothing is raised from here on."""
        self._is_running = False
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

    def _hook(
        self, before: Callable[[sys.UnraisableHookArgs], object]
    ) -> Callable[[sys.UnraisableHookArgs], None]:
        def hear(unraisable: sys.UnraisableHookArgs) -> None:
            # In a finalizer or a weak reference's callback Python prints an exception and goes on: once more, then.
            if self._is_running and isinstance(unraisable.exc_value, DeadlineExceeded):
                self._is_armed = True
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
            else:
                with self.shield():
                    before(unraisable)

        return hear

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
        SoftDeadline.times_raised += 1
        msg = f"the handler ran longer than its timeout of {self._timeout_s:g} s"
        raise DeadlineExceeded(msg)


def held_back() -> AbstractContextManager[None]:
    """Hold the exception of this process's deadline back until the block is over."""
    installed = SoftDeadline.installed
    return nullcontext() if installed is None else installed.shield()
