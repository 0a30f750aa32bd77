"""A connection as PyMySQL's, over the channel."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Final, Self

from pymysql import err

from penstock.channels.dbapi.mysql.cursors import Cursor
from penstock.channels.dbapi.mysql.refusals import REFUSALS
from penstock.channels.dbapi.mysql.session import Session
from penstock.channels.dbapi.refusals import Refusing
from penstock.channels.dbapi.server.connection import ServerConnection
from penstock.channels.dbapi.server.control import Beginning

#: What SQLAlchemy and the driver speak with the server.
_CHARSET: Final = "utf8mb4"
#: Said by programs that have opened a connection, of what the loop's connections are anyway.
_SET_NAMES: Final = re.compile(rf"\s*SET\s+NAMES\s+'?{_CHARSET}'?\s*;?\s*", re.IGNORECASE)
_SET_AUTOCOMMIT: Final = re.compile(
    r"\s*SET\s+(?:SESSION\s+|@@)?autocommit\s*=\s*(?P<value>0|1|ON|OFF)\s*;?\s*", re.IGNORECASE
)


class Connection(Refusing, ServerConnection):
    """As `pymysql.Connection`; its database is the one in `database.url`."""

    Warning = err.Warning
    Error = err.Error
    InterfaceError = err.InterfaceError
    DatabaseError = err.DatabaseError
    DataError = err.DataError
    OperationalError = err.OperationalError
    IntegrityError = err.IntegrityError
    InternalError = err.InternalError
    ProgrammingError = err.ProgrammingError
    NotSupportedError = err.NotSupportedError

    refusals = REFUSALS
    charset = encoding = _CHARSET
    count_of_none = 0

    def __init__(
        self,
        session: Session,
        *,
        autocommit: bool | None = False,
        cursorclass: type[Cursor] = Cursor,
    ) -> None:
        super().__init__(session, autocommit=bool(autocommit))
        self.cursorclass = cursorclass

    @property
    def open(self) -> bool:
        """True until `close`."""
        return not self.is_closed

    def cursor(self, cursor: type[Cursor] | None = None) -> Any:
        """A cursor of this connection, of the given class."""
        return (cursor or self.cursorclass)(self)

    def begin(self) -> None:
        """Begin a transaction with the next statement, after a commit of the one that is open."""
        with self.taken():
            self.begin_explicitly(Beginning())

    def commit(self) -> None:
        """Commit; harmless without a transaction. Raises what PyMySQL raises, and nothing is kept then."""
        with self.taken():
            self.end(commit=True)

    def rollback(self) -> None:
        """Roll back; harmless without a transaction."""
        with self.taken():
            self.end(commit=False)

    def close(self) -> None:
        """Roll back what is open, and close. Raises `Error` when it is closed, as PyMySQL does."""
        if self.is_closed:
            raise err.Error("Already closed")
        with self.lock:
            self.shut()

    def autocommit(self, value: bool) -> None:  # noqa: FBT001 - the driver's signature
        """Whether each statement is its own transaction; turned on, it commits what is open, as the server does."""
        with self.taken():
            if value and not self.is_autocommit:
                self.end(commit=True)
            self.is_autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """What `autocommit` said."""
        return self.is_autocommit

    def ping(self, reconnect: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the driver's signature
        """Ask the server for a sign of life. Raises what PyMySQL raises."""
        if self.is_closed:
            raise err.Error("Already closed")
        with self.cursor(Cursor) as cursor:
            cursor.execute("DO 0")

    def character_set_name(self) -> str:
        """What the loop's connections speak."""
        return _CHARSET

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def closed_error(self) -> Exception:
        """As PyMySQL words it."""
        return err.InterfaceError(0, "the connection is closed")

    def begin_explicitly(self, how: Beginning) -> None:
        """START TRANSACTION commits what is open."""
        self.end(commit=True)
        super().begin_explicitly(how)

    def obeys(self, statement: str) -> bool:
        """True for what the connection does by itself: telling the server would tell the next worker's transaction."""
        if statement[:4].strip().upper() not in ("SET", ""):
            return False
        if (found := _SET_AUTOCOMMIT.fullmatch(statement)) is not None:
            self.autocommit(found["value"].upper() in ("1", "ON"))
            return True
        return _SET_NAMES.fullmatch(statement) is not None
