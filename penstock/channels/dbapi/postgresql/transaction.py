"""`with connection.transaction()` as psycopg's: a transaction outside of one, a savepoint inside."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from psycopg import Rollback

from penstock.channels.dbapi.server.control import Beginning

if TYPE_CHECKING:
    from penstock.channels.dbapi.postgresql.connection import Connection


class Transaction:
    """Commits at the end of its block, rolls back when it raises; used once."""

    def __init__(
        self, connection: Connection, savepoint_name: str | None = None, *, force_rollback: bool = False
    ) -> None:
        self.connection = connection
        self.savepoint_name = savepoint_name or ""
        self.force_rollback = force_rollback
        self._is_outer = False
        self._is_used = False

    def __enter__(self) -> Self:
        if self._is_used:
            msg = "transaction blocks can be used only once"
            raise TypeError(msg)
        self._is_used = True
        connection = self.connection
        self._is_outer = not connection.in_transaction
        if self._is_outer:
            with connection.taken():
                connection.begin_explicitly(Beginning())
        elif not self.savepoint_name:
            self.savepoint_name = f"_pg3_{connection.blocks + 1}"
        connection.blocks += 1
        if self.savepoint_name:
            self._say("SAVEPOINT")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        connection = self.connection
        connection.blocks -= 1
        if kind is None and not self.force_rollback:
            self._end(commit=True)
            return False
        self._end(commit=False)
        if not isinstance(error, Rollback):
            return False
        whose: object = error.transaction
        return whose is None or whose is self

    def _end(self, *, commit: bool) -> None:
        connection = self.connection
        if self._is_outer:
            with connection.taken():
                connection.end(commit=commit)
        else:
            if not commit:
                self._say("ROLLBACK TO")
            self._say("RELEASE")

    def _say(self, verb: str) -> None:
        name = self.savepoint_name.replace('"', '""')
        self.connection.execute(f'{verb} "{name}"')
