"""Does the loop turn? Measured from both sides, because a loop that stands still cannot say so.

```
 loop    ─ beat ─ beat ─ beat ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ beat     notes when the next one is due
 thread  ──── look ──── look ──── look ──── look ────          late: says so, with the loop's stack
 C code  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─           not put off by the thread: writes all stacks
```
The third is for a call that keeps the interpreter's lock: no Python runs beside it, the thread included.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import select
import sys
import threading
import time
import traceback
from typing import Final

import structlog

from penstock.reactor.tally import Histogram

#: How often the loop beats; a beat costs about 10 µs.
BEAT_S: Final = 0.1
#: Longest time between two looks of the thread.
LOOK_S: Final = 1.0
#: Upper bounds of the lag, seconds.
LAGS_S: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

#: Innermost calls of the loop that are shown.
FRAMES: Final = 20

_log = structlog.get_logger("penstock.health")


class LoopWatch:
    """Watches the loop that calls `start`; `blocked_s` is how late a beat may be.

    `dump_fd` is where C code writes all stacks when no Python can run any more; None: nowhere. Only one watch of a
    process may have it.
    """

    def __init__(self, blocked_s: float, *, dump_fd: int | None = None) -> None:
        self.blocked_s = blocked_s
        self.lags = Histogram(LAGS_S)
        """How late each beat was, seconds; written by the loop."""
        self.times_blocked = 0
        """How often the loop was found blocked; written by the thread."""
        self._dump_fd = dump_fd
        self._look_s = min(LOOK_S, blocked_s / 4)
        self._due_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<LoopWatch [lag {self.lag_s():.3f} s, blocked {self.times_blocked} times]>"

    def lag_s(self) -> float:
        """How late the loop is now, seconds; from any thread."""
        return max(0.0, time.monotonic() - self._due_s)

    @property
    def is_blocked(self) -> bool:
        """True while the loop is later than it may be; from any thread."""
        return self.lag_s() > self.blocked_s

    def start(self) -> None:
        """Begin to beat on the running loop, and to look from a thread."""
        self._loop_thread = threading.get_ident()
        self._plan_beat()
        self._thread = threading.Thread(target=self._look, name="penstock-loop-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End both; harmless when repeated."""
        if self._timer is not None:
            self._timer.cancel()
        self._ended.set()
        if self._thread is not None:
            self._thread.join(self._look_s)

    def _plan_beat(self) -> None:
        self._due_s = time.monotonic() + BEAT_S
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _beat(self) -> None:
        self.lags.observe(self.lag_s())
        self._plan_beat()

    def _look(self) -> None:
        blocked_since_s: float | None = None
        looked_s = time.monotonic()
        while not self._ended.is_set():
            self._put_off_dump(time.monotonic() - looked_s)
            looked_s = time.monotonic()
            self._ended.wait(self._look_s)
            stood_s = time.monotonic() - looked_s - self._look_s
            lag_s = self.lag_s()
            if blocked_since_s is not None:
                if lag_s <= self.blocked_s:
                    _log.warning("the loop turns again", blocked_s=round(looked_s - blocked_since_s, 1))
                    blocked_since_s = None
            elif stood_s > self.blocked_s:
                self.times_blocked += 1
                _log.error(
                    "the whole process stood still: a call kept the interpreter's lock (every thread's stack was written to "
                    "stderr, as it was then), or the process was stopped",
                    stood_s=round(stood_s, 1),
                )
            elif lag_s > self.blocked_s:
                self.times_blocked += 1
                blocked_since_s = time.monotonic() - lag_s
                self._say_where(lag_s)
        self._cancel_dump()

    def _say_where(self, lag_s: float) -> None:
        # A stack as it is now: frames and lines, never values.
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the only way to another thread's stack
        stack = (
            "".join(traceback.format_stack(frame, FRAMES))
            if frame is not None
            else "the loop's thread is gone"
        )
        _log.error(
            "the loop is blocked: nothing is consumed, dispatched or acked until it turns again; move what blocks it "
            "into a plain handler or a thread",
            lag_s=round(lag_s, 1),
            stack=stack,
        )

    def _put_off_dump(self, since_s: float) -> None:
        if self._dump_fd is None:
            return
        if since_s > self.blocked_s / 2 and not _takes(self._dump_fd):
            # A dump may be under way and wait for whoever reads it: to cancel it would wait along, with the lock held.
            return
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            faulthandler.dump_traceback_later(self.blocked_s, file=self._dump_fd)

    def _cancel_dump(self) -> None:
        if self._dump_fd is not None and _takes(self._dump_fd):
            faulthandler.cancel_dump_traceback_later()


def _takes(fd: int) -> bool:
    """True when a write would not wait."""
    try:
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        return bool(poll.poll(0))
    except OSError:
        return True
