"""MySQL and MariaDB by PyMySQL: a connection that notices which statements outlive a rollback.

A spoilt connection is replaced. COM_RESET_CONNECTION would be cheaper, but it also resets what the driver has
set itself when it connected (character set, autocommit, sql_mode, init_command).
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pymysql import err
from pymysql.connections import Connection
from pymysql.constants import CLIENT, SERVER_STATUS
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import Pool

from penstock.channels.db.server.lengths import check_length
from penstock.errors import ConnectionMisused
from penstock.workers.database.mysql_family import MySQLFamilyKind, Watched

#: The driver bounds the TCP connection, and not the greeting of a server that is frozen. Its own default for the former.
_GREETING_TIMEOUT_S: Final = 10.0
#: A network that swallows packets would hold the test of an idle connection for a quarter of an hour.
_PING_TIMEOUT_S: Final = 5.0

#: The server says so of an answer when it was asked to track its session: what a function of the user's has set, too.
_STATE_CHANGED: Final = 0x4000


class CutOffError(err.InterfaceError):
    """Raised for whatever follows a statement that was cut off, or a close; SQLAlchemy takes it for a disconnect."""


if TYPE_CHECKING:
    _Connection: TypeAlias = Connection[Any]
else:
    _Connection = Connection


class WatchedConnection(Watched, _Connection):
    """The driver's connection, noting in `left` what outlives a rollback."""

    kept = ("cursorclass", "decoders", "encoders", "encoding", "use_unicode")
    #: The driver's own: the last result.
    _result: Any = None
    #: The driver's own: what its socket waits at most for an answer; None is for ever.
    _read_timeout: float | None
    #: True between a question and its answer.
    _is_midway = False
    _was_closed = False
    _status = 0

    def close(self) -> None:
        """As the driver's, but twice is harmless: SQLAlchemy closes what it finds broken."""
        if not self._was_closed:
            self._was_closed = True
            super().close()

    def query(self, sql: Any, unbuffered: bool = False) -> int:  # noqa: FBT001, FBT002 - the driver's signature
        """As the driver's. Raises `DataError` for a statement that the server would answer by ending the connection."""
        text = sql.decode("utf-8", "surrogateescape") if isinstance(sql, bytes | bytearray) else sql
        sql = sql.encode(self.encoding, "surrogateescape") if isinstance(sql, str) else sql
        check_length(sql, self.most_bytes, err.DataError)
        self.note_statement(text)
        self._refuse_amid_stream()
        with self._question():
            rows: int = super().query(sql, unbuffered)
        return rows

    def commit(self) -> None:
        """As the driver's. Raises `TransactionUndone` when half a transaction would be committed for a whole one."""
        self.check_undone()
        self._refuse_amid_stream()
        with self._question():
            super().commit()

    def rollback(self) -> None:
        """As the driver's."""
        self.undone_by = None
        if self._result is not None and self._result.unbuffered_active:
            # Nobody wants the rest, and nothing but reading takes it off the wire.
            self._result._finish_unbuffered_query()  # noqa: SLF001
        with self._question():
            super().rollback()

    def _refuse_amid_stream(self) -> None:
        # The driver would read what is left of the result and throw it away, with no more than a warning.
        if self._result is not None and self._result.unbuffered_active:
            msg = "another statement while an unbuffered result is open, whose remaining rows would be lost: read it to its end"
            raise ConnectionMisused(msg)

    @contextmanager
    def _question(self) -> Iterator[None]:
        # An exception that a signal raises between question and answer, such as a deadline, leaves the answer on
        # the wire, where the next question would take it for its own.
        if self._is_midway:
            self.close()
        if self._was_closed:
            msg = "the connection is closed: by the handler, or since a statement was cut off, by a deadline for example"
            raise CutOffError(0, msg)
        self._is_midway = True
        try:
            yield
        except err.MySQLError as error:
            self._is_midway = False
            self.note_failed(error)
            raise
        self._is_midway = False

    def autocommit(self, value: bool) -> None:  # noqa: FBT001 - the driver's signature
        """As the driver's."""
        self.left = "autocommit()"
        super().autocommit(value)

    @property
    def server_status(self) -> int:
        """What the last answer said of the session."""
        return self._status

    @server_status.setter
    def server_status(self, status: int) -> None:
        self._status = status
        if status & _STATE_CHANGED:
            self.left = self.left or "the session's state, as the server says"

    def ping(self, reconnect: Any = False) -> None:  # noqa: FBT002 - the driver's signature
        """As the driver's, but it never opens another connection, on which the rest of a message would be committed."""
        del reconnect
        super().ping(reconnect=False)

    def select_db(self, db: Any) -> None:
        """As the driver's."""
        self.left = "select_db()"
        super().select_db(db)

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """As the driver's."""
        self.left = "set_character_set()"
        super().set_character_set(charset, collation)


class MySQLKind(MySQLFamilyKind):
    """MySQL and MariaDB by PyMySQL."""

    def fault_of(self, raw: Any) -> str | None:
        """That the server has said something unasked: a goodbye, or the end of the stream. It costs no question."""
        if not raw.open:
            return "it is closed"
        poll = select.poll()
        poll.register(raw._sock, select.POLLIN)  # noqa: SLF001 - the driver has no word for it
        return "the server has closed it" if poll.poll(0) else None

    def ping(self, raw: Any) -> None:
        """Wait no longer than 5 s for a sign of life."""
        # The driver has no way to bound one question; it applies this to its socket before each answer.
        usual_s, raw._read_timeout = raw._read_timeout, _PING_TIMEOUT_S  # noqa: SLF001
        try:
            super().ping(raw)
        finally:
            raw._read_timeout = usual_s  # noqa: SLF001

    def cut_results(self, raw: Any) -> bool:
        """True for an unbuffered result that is not at its end."""
        result = raw._result  # noqa: SLF001 - the driver has no word for it
        if result is None or not result.unbuffered_active:
            return False
        result.unbuffered_active = False
        return True

    def end_transaction(self, raw: Any, *, commit: bool) -> None:
        """Only when the server's last answer said that there is one."""
        if raw.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            super().end_transaction(raw, commit=commit)

    def is_lost(self, error: BaseException) -> bool:
        """As for any database, but for a connection that was cut on this side: the deadline is the handler's own."""
        return not isinstance(error, CutOffError) and super().is_lost(error)

    def _create_engine(self, pool: type[Pool]) -> Engine:
        engine = create_engine(self.address.url, poolclass=pool, pool_reset_on_return=None)

        def connect(
            _dialect: Any, _record: Any, args: list[Any], options: dict[str, Any]
        ) -> WatchedConnection:
            usual_s = options.get("read_timeout")
            ours = {
                "read_timeout": usual_s or _GREETING_TIMEOUT_S,
                "client_flag": options.get("client_flag", 0) | CLIENT.SESSION_TRACK,
            }
            raw = WatchedConnection(*args, **{**options, **ours})
            # Older servers, and some that stand in between, do not know it.
            with suppress(err.MySQLError), raw.cursor() as cursor:
                cursor.execute("SET SESSION session_track_state_change = ON")
            # It ends with a rollback, whose answer no longer says that something changed.
            raw.most_bytes = self.most_bytes(raw)
            raw._read_timeout = usual_s  # noqa: SLF001
            return raw

        event.listen(engine, "do_connect", connect)
        return engine
