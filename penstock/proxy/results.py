"""The open results of a subprocess, by number; what is sent at once is bounded in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

#: So many bytes of a whole result are sent at once: a part fits into the socket, so the next rows are fetched while it is
#: being received. The same of the first rows of a result that is read as it is wanted: often nobody wants more.
PART_BYTES: Final = 64 * 1024
#: So many when a reader asks for more: each asking is a turn there and back.
CHUNK_BYTES: Final = 1024 * 1024
_FIRST_ROWS: Final = 50
_STEP_ROWS: Final = 2_000
_PIECE_BYTES: Final = 16 * 1024
#: Rows of a result that a commit may have to keep until they are fetched.
_KEPT_ROWS: Final = 100_000
#: A result that nobody reads on is closed: SQLite could not tidy up its log as long as it is open.
ABANDONED_S: Final = 60.0

#: What msgpack puts before the items of an array: a byte up to 15 of them, three up to 65,535.
_SHORT_ROWS, _SHORT_ARRAY, _ARRAY = 16, 1, 3

_encode: Final = msgspec.msgpack.Encoder().encode


class Open:
    """A result that has more rows. `carried` makes of fetched rows what can cross."""

    def __init__(self, cursor: Any, carried: Callable[[list[Any]], list[Any]], *, limit_bytes: int) -> None:
        self.used_at_s = time.monotonic()
        self._limit_bytes = limit_bytes
        self._cursor = cursor
        self._carried = carried
        self._step = _FIRST_ROWS
        self._ahead: list[Any] = []
        self._is_cut = False

    def next_rows(self, wanted_bytes: int = PART_BYTES) -> tuple[list[Any], bool]:
        """The next rows, about so many bytes of them, and whether there may be more.

        Raises what the driver raises, and `OverflowError` for rows that a commit could not keep.
        """
        self.used_at_s = time.monotonic()
        # The other half of a frame is for what else is in it; a row that needs more has one for itself.
        room_bytes = self._limit_bytes // 2
        wanted_bytes = min(wanted_bytes, room_bytes)
        bodies: list[bytes] = []
        size_bytes, count, more = 0, 0, True
        while more and size_bytes < wanted_bytes:
            rows = self._read(self._step)
            piece = _encode(rows)
            if size_bytes + len(piece) > room_bytes and len(rows) + count > 1:
                self._ahead[:0] = rows
                self._step = max(1, len(rows) // 2)
                if count:
                    break
                continue
            more = len(rows) == self._step
            self._step = max(1, min(_STEP_ROWS, self._step * _PIECE_BYTES // len(piece)))
            bodies.append(piece[_SHORT_ARRAY if len(rows) < _SHORT_ROWS else _ARRAY :])
            size_bytes += len(piece)
            count += len(rows)
        return _joined(bodies, count), more

    @property
    def is_empty(self) -> bool:
        """True when all that is left has been read, and there was nothing."""
        return self._cursor is None and not self._ahead

    def keep(self, limit: int | None = _KEPT_ROWS) -> None:
        """Read the rest now: its transaction ends."""
        if self._cursor is not None:
            rows = self._cursor.fetchall() if limit is None else self._cursor.fetchmany(limit)
            self._ahead += self._carried(list(rows))
            self._is_cut = len(rows) == limit
            self.close()

    def close(self) -> None:
        """No row of it is wanted any more."""
        if self._cursor is not None:
            # A driver that has lost its connection raises; there is nothing left to close then.
            with suppress(Exception):
                self._cursor.close()
            self._cursor = None

    def _read(self, count: int) -> list[Any]:
        found, self._ahead = self._ahead[:count], self._ahead[count:]
        if len(found) < count and self._cursor is not None:
            found += self._carried(list(self._cursor.fetchmany(count - len(found))))
        elif not found and self._is_cut:
            msg = f"the result is longer than the {_KEPT_ROWS} rows that are kept when its transaction ends: read it before"
            raise OverflowError(msg)
        return found


def _joined(bodies: list[bytes], count: int) -> list[Any]:
    """One array of all rows."""
    # Each piece was encoded when it was fetched, while it was in the processor's cache, and its objects were free for the
    # next one: a sixth less time than encoding all of them at once.
    rows: Any = msgspec.Raw(b"".join([b"\xdd", count.to_bytes(4), *bodies]))
    encoded: list[Any] = rows
    return encoded


class Results:
    """All open results. Raises words when there are too many."""

    def __init__(self, *, limit: int, idle_s: float, error: Callable[[str], Exception]) -> None:
        self._limit = limit
        self._idle_s = idle_s
        self._error = error
        self._open: dict[int, Open] = {}

    def add(self, number: int, result: Open) -> None:
        """Keep a result that has more rows."""
        self._open[number] = result

    def make_room(self, result: Open) -> None:
        """For one more; those that were idle for too long are closed. Raises words, and closes it, when there are too many."""
        if len(self._open) >= self._limit:
            self.drop_abandoned(self._idle_s)
        if len(self._open) >= self._limit:
            result.close()
            raise self._error(
                f"{self._limit} results are open in one subprocess of the proxy and not read to their end: close cursors, or "
                "fetch all rows"
            )

    def __len__(self) -> int:
        return len(self._open)

    def drop_abandoned(self, after_s: float = ABANDONED_S) -> None:
        """Close those of which nobody has read for so long."""
        old_s = time.monotonic() - after_s
        self.drop([number for number, result in self._open.items() if result.used_at_s < old_s])

    def find(self, number: int) -> Open:
        """The open result. Raises words when it was closed meanwhile."""
        found = self._open.get(number)
        if found is None:
            raise self._error(
                "the rest of this result is gone: its transaction was rolled back, or it was idle for too long; run the "
                "statement again"
            )
        return found

    def drop(self, numbers: list[int]) -> None:
        """Close those."""
        for number in numbers:
            if (result := self._open.pop(number, None)) is not None:
                result.close()

    def keep_all(self) -> None:
        """A transaction is committed: its rows stay."""
        for result in self._open.values():
            result.keep()

    def drop_all(self) -> None:
        """A transaction is rolled back, and the results with it."""
        self.drop(list(self._open))
