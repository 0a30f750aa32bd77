"""What statements say, read on the loop when they are short: a text of some megabytes takes seconds, and is read beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from penstock.channels.db.server.named import compiled
from penstock.channels.db.server.refusals import Ruling, check

T = TypeVar("T")

#: Some milliseconds, at worst.
_SHORT: Final = 32 * 1024


class Texts:
    """`backend` is mysql or postgresql."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        # One long text at a time: threads that only compute take the interpreter from the loop by turns.
        self._turn = asyncio.Lock()

    async def ruling(self, statement: str, *, in_transaction: bool) -> Ruling:
        """Raises `DatabaseError` for a statement that does not cross, or not there."""
        return await self._read(
            statement, lambda: check(statement, self._backend, in_transaction=in_transaction)
        )

    async def compiled(self, statement: str, names_given: Collection[str]) -> tuple[str, bool]:
        """The statement in the driver's paramstyle, and whether it takes parameters.

        Raises `DatabaseError` when a name has no value.
        """
        return await self._read(statement, lambda: compiled(statement, names_given, self._backend))

    async def _read(self, statement: str, read: Callable[[], T]) -> T:
        if len(statement) <= _SHORT:
            return read()
        async with self._turn:
            return await asyncio.to_thread(read)
