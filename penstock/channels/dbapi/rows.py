"""The rows of one statement in the worker: those that have come, and where the rest is."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Raw

from penstock.channels.db.calls import Chunk, Ran
from penstock.channels.dbapi.session import DriverSession


class RowBuffer:
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
