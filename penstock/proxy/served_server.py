"""A server's connection in a subprocess, watched: what of its transaction is undone, and what is left on it for the next user.

PostgreSQL answers a COMMIT behind an error with a ROLLBACK, in silence. MySQL and MariaDB roll back everything with some
errors, and begin another transaction with the next statement. A function speaks to the driver past us, so the watch
sits where the drivers that we know send what they were given; of others it says that anything may be left.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any, Final

from penstock.channels.db.leftovers import left_by, left_in_postgresql
from penstock.channels.db.server.codes import LOCK_TIMEOUT, UNDOING_CODES
from penstock.channels.db.server.commits import commits
from penstock.proxy.statements import Kind, kind_of

#: `INERROR`, as psycopg and psycopg2 say it: a statement failed, and no savepoint was gone back to.
_IN_ERROR: Final = 3
#: Enough of a statement for its first words.
_FIRST_CHARACTERS: Final = 200
#: Longer texts are looked at each time, and not kept.
_CACHED_CHARACTERS: Final = 2_000
#: Attributes of the drivers' connections that whoever comes next would find.
_ATTRIBUTES: Final = (
    "autocommit", "isolation_level", "read_only", "deferrable", "prepare_threshold", "row_factory", "cursor_factory",
    "server_cursor_factory", "autocommit_mode", "cursorclass", "decoders", "encoders", "converter", "encoding", "use_unicode",
)  # fmt: skip


class ServerWatch:
    """Of one connection. `left` is, in words, what outlives its transaction; None when nothing does."""

    def __init__(self, module: ModuleType, connection: Any) -> None:
        self.left: str | None = None
        self.is_lent = False
        """A function has the connection."""
        self._module = module
        self._connection = connection
        self._undone_by: BaseException | None = None
        info = getattr(connection, "info", None)
        self._is_postgresql = hasattr(info, "transaction_status")
        self._is_told = self._watch()
        self._state = self._look()

    def note(self, sql: Any) -> None:
        """This goes to the server. Raises the driver's `OperationalError` for a commit by text that would commit nothing, or half."""
        if self._undone_by is not None and kind_of(_text(sql[:_FIRST_CHARACTERS])) is Kind.ROLLS_BACK:
            self.forget_error()
        text = _text(sql)
        if commits(text):
            self._check_commit()
        if self.left is None:
            found = _left_by if len(text) <= _CACHED_CHARACTERS else _left_by.__wrapped__
            self.left = found(text, is_postgresql=self._is_postgresql)

    def note_failed(self, error: BaseException) -> None:
        """The server answered with this."""
        if self._undone_by is None and isinstance(error, self._module.Error):
            code = _code_of(error)
            if code in UNDOING_CODES or code == LOCK_TIMEOUT:
                self._undone_by = error

    def note_function(self) -> None:
        """A function had the connection."""
        self.is_lent = False
        if self.left is not None:
            return
        if not self._is_told:
            self.left = "a function of a driver that is not watched"
        elif self._look() != self._state:
            self.left = "an attribute of the driver's connection"

    def forget_error(self) -> None:
        """Somebody has rolled back."""
        self._undone_by = None

    def why_over(self) -> str | None:
        """In words, when nothing of the transaction is there any more; None while it is."""
        error = self._undone_by
        if error is not None and _code_of(error) == LOCK_TIMEOUT and not self._timeouts_undo_all():
            error = self._undone_by = None
        return None if error is None else f"by the server itself, with the error {error}"

    def why_not_committed(self) -> str | None:
        """In words, when a commit would commit nothing, or half; None when it would commit all."""
        if self._is_postgresql and self._connection.info.transaction_status == _IN_ERROR:
            return "because a statement in it failed, behind which PostgreSQL commits nothing unless one goes back to a SAVEPOINT"
        return self.why_over()

    def _check_commit(self) -> None:
        if (why := self.why_not_committed()) is not None:
            raise self._module.OperationalError(
                f"the transaction has been rolled back, {why}: nothing of it was committed"
            )

    def _timeouts_undo_all(self) -> bool:
        try:
            cursor = self._connection.cursor()
            cursor.execute("SELECT @@innodb_rollback_on_timeout")
            return bool(cursor.fetchall()[0][0])
        except Exception:  # noqa: BLE001
            # Whatever it is, it is not known: then nothing is committed rather than half.
            return True

    def _look(self) -> dict[str, Any]:
        found = {name: getattr(self._connection, name, None) for name in _ATTRIBUTES}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}

    def _watch(self) -> bool:
        """True when the driver is one whose every statement comes by here."""
        try:
            if hasattr(self._connection, "query"):
                self._watch_query()
            elif self._is_postgresql and hasattr(self._connection, "server_cursor_factory"):
                self._watch_cursors()
            else:
                return False
        except (AttributeError, TypeError):
            # One written in C lets nobody in between.
            return False
        return True

    def _watch_query(self) -> None:
        # By PyMySQL's and mysqlclient's.
        connection = self._connection
        self._watch_commit()
        send, roll_back = connection.query, connection.rollback

        def query(sql: Any, *args: Any, **options: Any) -> Any:
            if self.is_lent:
                self.note(sql)
            try:
                return send(sql, *args, **options)
            except Exception as error:
                self.note_failed(error)
                raise

        def rollback() -> None:
            roll_back()
            self.forget_error()

        connection.query, connection.rollback = query, rollback

    def _watch_commit(self) -> None:
        # Those of functions; ours has asked before.
        do_commit = self._connection.commit

        def commit() -> None:
            if self.is_lent:
                self._check_commit()
            do_commit()

        self._connection.commit = commit

    def _watch_cursors(self) -> None:
        # By psycopg's.
        connection = self._connection
        self._watch_commit()
        for name in ("cursor_factory", "server_cursor_factory"):
            setattr(connection, name, _noting(getattr(connection, name), self))


def _noting(factory: Any, watch: ServerWatch) -> Any:
    """A subclass of a driver's cursor whose statements are noted."""

    def noted(name: str) -> Any:
        method = getattr(factory, name)

        def run(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
            if watch.is_lent:
                watch.note(query if isinstance(query, str | bytes) else query.as_string(cursor))
            return method(cursor, query, *args, **options)

        return run

    names = [name for name in ("execute", "executemany", "stream", "copy") if hasattr(factory, name)]
    return type(factory.__name__, (factory,), {name: noted(name) for name in names})


@lru_cache(maxsize=1024)
def _left_by(text: str, *, is_postgresql: bool) -> str | None:
    return left_in_postgresql(text) if is_postgresql else left_by(text)


def _code_of(error: BaseException) -> object:
    return error.args[0] if error.args and isinstance(error.args[0], int) else None


def _text(sql: Any) -> str:
    return sql.decode(errors="replace") if isinstance(sql, bytes | bytearray) else str(sql)
