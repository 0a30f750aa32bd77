"""The one connection of a subprocess, with the differences between drivers behind four words: begin, end, run, broken."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from typing import Any, Final

from penstock.proxy.served_sqlite import ServedSqlite, open_sqlite
from penstock.proxy.wire import Boot
from penstock.threads.opening import says_closed

#: A server may have closed a connection that rested longer; it is asked before it is used.
_TEST_AFTER_S: Final = 30.0


class Served:
    """Opens the connection, keeps its transaction, and says when it is of no more use."""

    def __init__(self, boot: Boot) -> None:
        self._boot = boot
        self.module = import_module(boot.driver)
        self.is_sqlite = boot.driver == "sqlite3"
        self.in_transaction = False
        self.connection: Any = self._open()
        self._used_at_s = time.monotonic()

    def ready(self) -> None:
        """Before a statement: open it anew when it rested for long and the server has closed it."""
        rested_s = time.monotonic() - self._used_at_s
        self._used_at_s += rested_s
        if self.is_sqlite or self.in_transaction or rested_s < _TEST_AFTER_S:
            return
        try:
            cursor = self.connection.cursor()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            self.connection.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, a connection that is not in order is replaced
            self.close()
            self.connection = self._open()

    def begin(self) -> None:
        """Begin a transaction; one that was left over is rolled back."""
        if self.in_transaction:
            self.end(commit=False)
        if self.is_sqlite:
            with self.ours():
                self.connection.execute("BEGIN IMMEDIATE")
        self.in_transaction = True

    def end(self, *, commit: bool) -> None:
        """Commit or roll back. Raises what the driver raises; a commit that failed is rolled back."""
        self.in_transaction = False
        if self.is_sqlite and not self.connection.in_transaction:
            return
        if not commit:
            self._control("ROLLBACK", self.connection.rollback)
            return
        try:
            self._control("COMMIT", self.connection.commit)
        except BaseException:
            # Why the commit failed is what its thread has to hear.
            with suppress(Exception):
                self._control("ROLLBACK", self.connection.rollback)
            raise

    def is_in_transaction(self) -> bool:
        """False when it was rolled back meanwhile, by us or by SQLite (`INSERT OR ROLLBACK`, a full disk)."""
        return self.in_transaction and (not self.is_sqlite or self.connection.in_transaction)

    def why_over(self, idle_s: float) -> str:
        """In words, for a transaction that is none any more."""
        if self.in_transaction:
            return "by SQLite itself after an error"
        return f"because it was without a statement for {idle_s:g} s"

    def settle(self, *, commits: bool) -> None:
        """After a statement that is a transaction of its own."""
        if commits and not self.is_sqlite:
            self.end(commit=True)

    def undo(self) -> None:
        """After a statement that failed outside a transaction."""
        if not self.in_transaction:
            # A connection that cannot even roll back is broken, which is looked at next.
            with suppress(Exception):
                self.end(commit=False)

    def is_broken(self) -> bool:
        """True when the connection cannot go on: the server is gone, or has thrown it out."""
        return not self.is_sqlite and says_closed(self.connection)

    def close(self) -> None:
        """Say goodbye to the server."""
        # To one that is gone there is nothing to say.
        with suppress(Exception):
            self.connection.close()

    def _open(self) -> Any:
        boot = self._boot
        if self.is_sqlite:
            assert boot.database is not None
            return open_sqlite(boot.database, boot.options, writes=boot.writes)
        arguments = () if boot.database is None else (boot.database,)
        connect: Callable[..., Any] = self.module.connect
        return connect(*arguments, **boot.options)

    def _control(self, statement: str, call: Callable[[], object]) -> None:
        if self.is_sqlite:
            with self.ours():
                self.connection.execute(statement)
        else:
            call()

    def ours(self) -> AbstractContextManager[None]:
        """For what SQLite would refuse from callers."""
        return self.connection.ours() if isinstance(self.connection, ServedSqlite) else nullcontext()

    def reset(self) -> None:
        """After a function had the connection."""
        if isinstance(self.connection, ServedSqlite):
            self.connection.reset()
