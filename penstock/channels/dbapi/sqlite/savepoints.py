"""Which savepoints are open, so that the one which began the transaction ends it, as in SQLite."""

from __future__ import annotations

import re
from typing import Final

from penstock.channels.dbapi.sqlite.session import wrong

_NAMED: Final = re.compile(
    r"""\b(?:SAVEPOINT|TO|RELEASE)(?:\s+(?P<word>\w+)|\s*(?P<quoted>"(?:[^"]|"")+"|'(?:[^']|'')+'|`[^`]+`|\[[^\]]+\]))\s*;?\s*\Z""",
    re.IGNORECASE,
)


class Savepoints:
    """Names, the innermost last; names of savepoints are the same in capitals."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._is_transaction = False

    def name_in(self, statement: str) -> str:
        """The name in SAVEPOINT, RELEASE and ROLLBACK TO. Raises `OperationalError` without one."""
        found = _NAMED.search(statement)
        if found is None:
            raise wrong("incomplete input")
        return (found["word"] or found["quoted"][1:-1]).upper()

    def begin_with_one(self) -> None:
        """The next one is the transaction itself."""
        self._names.clear()
        self._is_transaction = True

    def add(self, name: str) -> None:
        """It is open."""
        self._names.append(name)

    def roll_back_to(self, name: str) -> None:
        """Those inside it are gone; it stays."""
        if name in self._names:
            del self._names[self._last(name) + 1 :]

    def release(self, name: str) -> bool:
        """It is gone with those inside it; True when the transaction ends with it."""
        if name in self._names:
            del self._names[self._last(name) :]
        return self._is_transaction and not self._names

    def clear(self) -> None:
        """The transaction is over."""
        self._names.clear()
        self._is_transaction = False

    def _last(self, name: str) -> int:
        return len(self._names) - 1 - self._names[::-1].index(name)
