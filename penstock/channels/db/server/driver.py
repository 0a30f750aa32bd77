"""What the channel asks of an asynchronous driver: one file a database implements it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import URL

from penstock.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class Mode:
    """What a transaction is begun with."""

    isolation: str | None = None
    is_read_only: bool = False
    is_deferrable: bool = False


#: What a server gets to let a connection in.
CONNECT_S: Final = 10.0
USUAL: Final = Mode()
_LEVELS: Final = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def check_isolation(level: str) -> str:
    """The level as it stands in a statement. Raises `DatabaseError` for what is none."""
    words = level.upper().replace("_", " ")
    if words not in _LEVELS:
        msg = f"{level!r} is no isolation level: there are {', '.join(_LEVELS)}; nothing was run"
        raise DatabaseError(msg, "ProgrammingError")
    return words


class Result(Protocol):
    """A statement's answer, as far as it is read; only `rows` and `discard` touch the wire."""

    columns: list[str] | None
    """None: it gives no rows."""
    exotic: list[int]
    """Positions of the columns whose values do not cross as they are."""
    row_count: int
    """As the driver counts, once the last row is read; -1 until then."""
    last_row_id: int | None
    status: str | None
    is_read: bool
    """Nothing of it is on the wire any more."""

    def types(self) -> list[list[Any]]:
        """What PEP 249's description says of each column after its name."""
        ...

    async def rows(self) -> list[Any]:
        """The next few rows, as the server sends them; none at the end. Raises what the driver raises."""
        ...


class Written:
    """Implements `Result` for a statement that gives no rows."""

    columns: list[str] | None = None
    is_read = True

    def __init__(self, row_count: int, last_row_id: int | None = None, status: str | None = None) -> None:
        self.row_count = row_count
        self.last_row_id = last_row_id
        self.status = status
        self.exotic: list[int] = []

    def types(self) -> list[list[Any]]:
        """None."""
        return []

    async def rows(self) -> list[Any]:
        """None."""
        return []


class Driver(Protocol):
    """One database's asynchronous driver; `raw` is its connection."""

    backend: str
    """Whose words for refusals and errors are right: mysql or postgresql."""

    def engine_options(self, url: URL) -> dict[str, Any]:
        """For SQLAlchemy's engine, so that its connections commit by themselves."""
        ...

    def number_of(self, raw: Any) -> int:
        """The server's number of the connection."""
        ...

    def is_closed(self, raw: Any) -> bool:
        """True when nothing can be run on it any more; asks nobody."""
        ...

    def has_heard(self, raw: Any) -> bool:
        """True when the server has said something unasked, a goodbye for one; asks nobody."""
        ...

    def in_transaction(self, raw: Any) -> bool:
        """True when there is something to commit or roll back; asks nobody."""
        ...

    def is_undone(self, raw: Any) -> bool:
        """True when a commit would be a rollback."""
        ...

    async def ping(self, raw: Any) -> None:
        """Raises what the driver raises when nobody answers."""
        ...

    async def prepare(self, raw: Any, mode: Mode | None, *, is_begun: bool) -> None:
        """Make it ready for a statement: in a transaction that begins so, or on its own for None.

        `is_begun`: the transaction has had a statement already.
        """
        ...

    async def commit(self, raw: Any) -> None:
        """Raises what the driver raises."""
        ...

    async def roll_back(self, raw: Any) -> None:
        """Raises what the driver raises."""
        ...

    async def run(self, raw: Any, statement: str, parameters: Any) -> Result:
        """Run a statement in the driver's paramstyle; None as parameters: % is not special."""
        ...

    async def run_many(self, raw: Any, statement: str, parameters: list[Any], *, is_whole: bool) -> Result:
        """The driver's executemany; `is_whole`: when one fails, those before it are undone where the server would keep them."""
        ...

    async def cut(self, raw: Any) -> bool:
        """End a result outside a transaction that nobody reads any more; False: it cannot be used after that."""
        ...

    async def kill(self, raw: Any) -> None:
        """Tell the server to end what runs on the connection, over another one."""
        ...

    async def was_undone(self, raw: Any, error: BaseException) -> bool:
        """True when the server has ended the whole transaction with the statement that failed."""
        ...

    def is_error(self, error: BaseException) -> bool:
        """True for what the driver raises."""
        ...

    def is_gone(self, raw: Any, error: BaseException) -> bool:
        """True when the connection ended with that error."""
        ...

    def arguments_of(self, error: BaseException) -> list[Any]:
        """What the exception was made of, plain."""
        ...

    def diagnostics_of(self, error: BaseException) -> tuple[str | None, dict[str, str | None]]:
        """SQLSTATE, and what else the server said of it."""
        ...
