"""The flight recorder: shared memory in which a worker notes what it is doing, readable after its death.

```
 0       4        8        12       16         24        64
 ┌───────┬────────┬────────┬────────┬──────────┬─────────┬──────────────────────┐
 │ phase │ batch  │ index  │ stop   │ since_ns │ peak_kib│ one outcome byte each│
 └───────┴────────┴────────┴────────┴──────────┴─────────┴──────────────────────┘
   worker   worker   worker  reactor   worker    worker     worker
```
A note costs about 0.3 µs and no system call. Times are CLOCK_MONOTONIC, which all processes share.

Taking back: the worker announces an index and *then* reads `stop`; the reactor lowers `stop` and *then* reads the
index, a loop turn later, so that a delivery taken back can never have been begun.
"""

from __future__ import annotations

import mmap
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct as Layout
from typing import Final

#: Deliveries in one batch at the most; one outcome byte each.
MAX_BATCH: Final = 1024
_OUTCOMES_AT: Final = 64
SIZE_BYTES: Final = _OUTCOMES_AT + MAX_BATCH
_NOTE: Final = Layout("<III")
_STOP: Final = Layout("<I")
_STOP_AT: Final = 12
_SINCE: Final = Layout("<Q")
_SINCE_AT: Final = 16
_PEAK: Final = Layout("<Q")
_PEAK_AT: Final = 24
#: Darwin counts bytes where everybody else counts KiB.
_PEAK_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class Phase(IntEnum):
    """What a worker is doing."""

    IDLE = 0
    DECODING = 1
    HANDLER = 2
    IN_TRANSACTION = 3
    COMMITTING = 4
    ENDED = 5
    """The delivery's outcome is known; the next has not begun."""

    @property
    def words(self) -> str:
        """For logs and dead letters."""
        return self.name.lower().replace("_", " ")


class Mark(IntEnum):
    """The outcome byte of one delivery."""

    NONE = 0
    ACKED = 1
    """The handler returned, published nothing, its transaction is committed."""
    TOLD = 2
    """The outcome went over the channel, before this byte was written."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the recorder says at one moment."""

    phase: Phase
    batch: int
    index: int
    since_s: float
    """Monotonic time at which the phase began."""


class Recorder:
    """One worker's recorder; made by `create` in the reactor, from the descriptor in the worker."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SIZE_BYTES)

    @classmethod
    def create(cls) -> Recorder:
        """New shared memory, all zero."""
        if sys.platform == "linux":
            fd = os.memfd_create("penstock-recorder", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
        os.ftruncate(fd, SIZE_BYTES)
        return cls(fd)

    # --- worker's side

    def begin_batch(self, batch: int, size: int) -> None:
        """A batch arrived; its outcome bytes are cleared, the most memory so far is noted."""
        _PEAK.pack_into(self._memory, _PEAK_AT, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        self._memory[_OUTCOMES_AT : _OUTCOMES_AT + size] = bytes(size)
        _NOTE.pack_into(self._memory, 0, Phase.IDLE, batch, 0)

    def begin(self, batch: int, index: int) -> bool:
        """Announce a delivery; False when the reactor has taken it back, which must not be begun then."""
        _NOTE.pack_into(self._memory, 0, Phase.DECODING, batch, index)
        _SINCE.pack_into(self._memory, _SINCE_AT, time.monotonic_ns())
        stop: int = _STOP.unpack_from(self._memory, _STOP_AT)[0]
        if index < stop:
            return True
        self._memory[0] = Phase.IDLE
        return False

    def enter(self, phase: Phase) -> None:
        """Note the phase of the delivery that was begun; the time runs on."""
        self._memory[0] = phase

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The delivery waits for what is nobody's fault: its time stands still, and a death meanwhile is not its own."""
        phase = self._memory[0]
        since_ns: int = _SINCE.unpack_from(self._memory, _SINCE_AT)[0]
        began_ns = time.monotonic_ns()
        self._memory[0] = Phase.IDLE
        try:
            yield
        finally:
            _SINCE.pack_into(self._memory, _SINCE_AT, since_ns + time.monotonic_ns() - began_ns)
            self._memory[0] = phase

    def end(self, index: int, mark: Mark) -> None:
        """Note how the delivery ended."""
        self._memory[_OUTCOMES_AT + index] = mark
        self._memory[0] = Phase.ENDED

    def rest(self) -> None:
        """The batch is over."""
        self._memory[0] = Phase.IDLE

    # --- reactor's side

    def set_stop(self, stop: int) -> None:
        """Deliveries from this index on are not to be begun."""
        _STOP.pack_into(self._memory, _STOP_AT, stop)

    def read(self) -> Reading:
        """What the worker is doing, or was doing when it died."""
        phase, batch, index = _NOTE.unpack_from(self._memory, 0)
        since_ns: int = _SINCE.unpack_from(self._memory, _SINCE_AT)[0]
        return Reading(Phase(phase), batch, index, since_ns / 1e9)

    def peak_bytes(self) -> int:
        """The most resident memory that the worker had had when its last batch began."""
        peak: int = _PEAK.unpack_from(self._memory, _PEAK_AT)[0]
        return peak * _PEAK_UNIT

    def marks(self, size: int) -> bytes:
        """The outcome bytes of the first `size` deliveries."""
        return self._memory[_OUTCOMES_AT : _OUTCOMES_AT + size]

    def close(self) -> None:
        """Give the memory back; harmless when repeated."""
        if not self._memory.closed:
            self._memory.close()
            os.close(self.fd)
