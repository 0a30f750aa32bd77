"""The one connection of a subprocess, with the differences between drivers behind five words: begin, end, lend, broken, left."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from typing import Any, Final

from penstock.proxy.served_server import ServerWatch
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
        self.connection: Any
        self.cursor: Callable[[], Any]
        self._watch: ServerWatch | ServedSqlite
        self._is_missing = True
        """The last one is gone, and another one not there yet."""
        self._open()
        self._used_at_s = time.monotonic()

    def ready(self) -> None:
        """Before a statement: open it anew when it rested for long and the server has closed it."""
        rested_s = time.monotonic() - self._used_at_s
        self._used_at_s += rested_s
        if self._is_missing:
            self._open()
        if self.is_sqlite or self.in_transaction or rested_s < _TEST_AFTER_S:
            return
        try:
            cursor = self.connection.cursor()
            cursor.execute("SELECT 1")
            cursor.fetchall()
            self.connection.rollback()
        except Exception:  # noqa: BLE001 - whatever it is, a connection that is not in order is replaced
            self.close()
            self._open()

    def begin(self) -> None:
        """Begin a transaction; one that was left over is rolled back."""
        if self.in_transaction:
            self.end(commit=False)
        if self.is_sqlite:
            self.begin_statement()
        self.in_transaction = True

    def begin_statement(self) -> None:
        """SQLite: the transaction of one statement, which `settle` commits, and `undo` rolls back."""
        with self.ours():
            self.connection.execute("BEGIN IMMEDIATE")

    def end(self, *, commit: bool) -> None:
        """Commit or roll back. Raises what the driver raises; a commit that failed is rolled back."""
        self.in_transaction = False
        self._watch.forget_error()
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

    def why_over(self, idle_s: float) -> str | None:
        """In words, for a transaction that was rolled back meanwhile, by us or by its database; None while it is open."""
        if not self.in_transaction:
            return f"because it was without a statement for {idle_s:g} s"
        return self._watch.why_over()

    def why_not_committed(self, idle_s: float) -> str | None:
        """In words, when a commit would commit nothing, or half of it; None when it would commit all."""
        if self.in_transaction and self.is_closed():
            return (
                "because the connection that the function was lent is closed, by the server, or by the function, which must leave it "
                "open"
            )
        if not self.in_transaction:
            return self.why_over(idle_s)
        return self._watch.why_not_committed()

    def note(self, sql: str) -> None:
        """This statement comes next."""
        self._watch.note(sql)

    def note_failed(self, error: BaseException) -> None:
        """It failed."""
        self._watch.note_failed(error)

    def settle(self, *, commits: bool) -> None:
        """After a statement that is a transaction of its own."""
        if commits and (not self.is_sqlite or self.connection.in_transaction):
            self.end(commit=True)

    def undo(self) -> None:
        """After a statement that failed outside a transaction."""
        if not self.in_transaction:
            # A connection that cannot even roll back is broken, which is looked at next.
            with suppress(Exception):
                self.end(commit=False)

    def is_broken(self) -> bool:
        """True when the connection cannot go on: the server is gone, or has thrown it out."""
        return self._is_missing or (not self.is_sqlite and says_closed(self.connection))

    def is_closed(self) -> bool:
        """True when a function has closed it."""
        if not self.is_sqlite:
            return says_closed(self.connection)
        try:
            _ = self.connection.in_transaction
        except sqlite3.ProgrammingError:
            return True
        return False

    @contextmanager
    def lent(self) -> Iterator[None]:
        """For a function of the user's, which does with the connection what it likes."""
        self._watch.is_lent = True
        try:
            yield
        finally:
            self._watch.note_function()
            if self.is_closed():
                self._watch.left = "close()"

    @property
    def is_spoilt(self) -> bool:
        """True when the next user would find what the last one left."""
        return self._watch.left is not None and not self.in_transaction and not self._is_missing

    def replace(self, *, is_read: bool) -> None:
        """Open another connection; `is_read`: results of the old one are, which on SQLite lives as long as they do."""
        if is_read and isinstance(self.connection, ServedSqlite):
            with suppress(sqlite3.ProgrammingError):  # a function went past its `close`
                self.connection.let_go()
        else:
            self.close()
        self._is_missing = True
        # Whoever comes next tries again, and hears why not.
        with suppress(Exception):
            self._open()

    def close(self) -> None:
        """Say goodbye to the server."""
        # To one that is gone there is nothing to say.
        with suppress(Exception):
            self.connection.close()

    def _open(self) -> None:
        boot = self._boot
        if self.is_sqlite:
            assert boot.database is not None
            self.connection = self._watch = open_sqlite(boot.database, boot.options, writes=boot.writes)
            # Past our own, which is for functions.
            self.cursor = partial(sqlite3.Connection.cursor, self.connection)
        else:
            arguments = () if boot.database is None else (boot.database,)
            connect: Callable[..., Any] = self.module.connect
            self.connection = connect(*arguments, **boot.options)
            self.cursor = self.connection.cursor
            self._watch = ServerWatch(self.module, self.connection)
        self._is_missing = False

    def _control(self, statement: str, call: Callable[[], object]) -> None:
        if self.is_sqlite:
            with self.ours():
                self.connection.execute(statement)
        else:
            call()

    def ours(self) -> AbstractContextManager[None]:
        """For what SQLite would refuse from callers."""
        return self.connection.ours() if isinstance(self.connection, ServedSqlite) else nullcontext()
