"""The rows of one statement in the worker: those that have come, and where the rest is; what `executemany` sends."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from msgspec import Raw

from penstock.channels.db.calls import Chunk, Ran
from penstock.channels.db.parting import parts
from penstock.channels.dbapi.session import DriverSession

#: Rows that `executemany` takes from its argument at once: an endless one must not fill the memory.
_MANY: Final = 50_000


class Rows:
    """Asks for the next chunk when the last one is read; thrown away, it leaves word that the rest is not wanted."""

    def __init__(
        self, session: DriverSession, ran: Ran, decode: Callable[[Raw], list[tuple[Any, ...]]]
    ) -> None:
        self.ready: deque[tuple[Any, ...]] = deque()
        self.count = ran.chunk.row_count
        """As the driver counts; of a query once its last row has come."""
        self._session = session
        self._decode = decode
        self._open = ran.cursor
        self._add(ran.chunk)

    def __del__(self) -> None:
        opened = getattr(self, "_open", None)
        if opened is not None:
            self._session.dropped.append(opened)

    @property
    def is_whole(self) -> bool:
        """True when nothing of it is left over there."""
        return self._open is None

    def more(self) -> bool:
        """Ask for the next chunk; False when there is none. Raises what the driver raised."""
        if self._open is None:
            return False
        opened, self._open = self._open, None
        chunk = self._session.fetch(opened)
        self._open = opened
        self._add(chunk)
        if chunk.is_last:
            self.count = chunk.row_count
        return bool(self.ready)

    def read_rest(self) -> None:
        """Bring all of it here. Raises what the driver raised."""
        while self._open is not None:
            self.more()

    def has(self, count: int) -> bool:
        """True when so many are left; they are brought here."""
        while len(self.ready) < count:
            if not self.more():
                return False
        return True

    def taking(self, most: int) -> Iterator[tuple[Any, ...]]:
        """At most so many, all of them for -1; those that were taken are gone from here."""
        while most and (self.ready or self.more()):
            most -= 1
            yield self.ready.popleft()

    def discard(self) -> None:
        """Nobody wants it any more."""
        self.ready.clear()
        opened, self._open = self._open, None
        if opened is not None:
            self._session.drop(opened)

    def _add(self, chunk: Chunk) -> None:
        for piece in chunk.rows:
            self.ready.extend(self._decode(piece))
        if chunk.is_last:
            self._open = None


def is_one(crossings: Iterator[Raw]) -> tuple[bool, Iterator[Raw]]:
    """True when there is only one of what `batches` gave, and all of them again."""
    taken = list(itertools.islice(crossings, 2))
    return len(taken) < 2, itertools.chain(taken, crossings)


def batches(
    statement: str, rows: Iterable[Any], bound: Callable[[Any], Any], *, limit_bytes: int
) -> Iterator[Raw]:
    """What `executemany` sends: each batch as large as a frame lets it be, one empty batch for no rows at all."""
    # What is no statement is refused by who runs it.
    room_bytes = limit_bytes - len(str(statement).encode(errors="surrogatepass"))
    iterator = iter(rows)
    is_first = True
    while True:
        batch = [bound(row) for row in itertools.islice(iterator, _MANY)]
        if batch or is_first:
            yield from parts(batch, room_bytes)
        is_first = False
        if len(batch) < _MANY:
            return
