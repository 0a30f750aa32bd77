"""What a handler gets beside its payload: the message, the database, the bus, the worker's state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeAlias, Unpack

from penstock.app.messages import HeaderValue
from penstock.app.options import Options

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable
    from sqlalchemy import Row as SQLRow
    from sqlalchemy.orm import Session
    from structlog.typing import FilteringBoundLogger

#: What `ctx.db` runs: SQL, or a statement of SQLAlchemy's Core.
Statement: TypeAlias = "str | Executable"
#: By name, or by place (SQLite); a sequence of such, for several rows, where a statement is executed.
Parameters: TypeAlias = Mapping[str, Any] | Sequence[Any] | None
Row: TypeAlias = Mapping[str, Any]
#: The one value of `redelivered_after`.
COMMIT_UNKNOWN: Final = "commit unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInfo:
    """What is known of the message beside its payload."""

    id: str | None
    queue: str
    handler: str
    attempt: int = 1
    """1 in the first run."""
    redelivered: bool = False
    """True when the bus handed it out before; its earlier run may have had effects."""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    correlation_id: str | None = None
    reply_to: str | None = None
    type: str | None = None
    timestamp_s: float | None = None
    redelivered_after: str | None = None
    """`"commit unknown"` when an earlier run was cut off while it committed: its transaction may be durable."""


class BusChannel(Protocol):
    """`ctx.bus`: publish through the loop's own connection."""

    def publish(self, queue_or_payload: Any, payload: Any = ..., **options: Unpack[Options]) -> str:
        """Keep a message that leaves after this handler's commit, and not at all when it fails; returns its id.

        `publish(queue, payload)` goes to a queue, `publish(payload, exchange=…, routing_key=…)` to an exchange;
        the other words are those of `Options`. Raises `PayloadError` at once when the payload cannot be written as JSON.
        """
        ...

    def publish_now(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> str:
        """Send it now and wait for the publisher confirm; it stays sent when the handler fails.

        Raises `Unroutable`, `PublishTimeout` after `timeout` seconds, or another `PublishError`.
        """
        ...


class Transaction(Protocol):
    """`ctx.db.transaction()`: several statements, one commit, over the database channel."""

    def execute(self, statement: Statement, parameters: Parameters = None) -> int:
        """Run one statement; returns the number of rows it changed.

        With a list of parameters it is run for each, all or none; it crosses once, and the numbers are added up.
        """
        ...

    def fetch_all(self, statement: Statement, parameters: Parameters = None) -> list[Row]:
        """All rows, each a mapping from column name to value."""
        ...

    def fetch_one(self, statement: Statement, parameters: Parameters = None) -> Row | None:
        """The first row, or None."""
        ...

    def stream(self, statement: Statement, parameters: Parameters = None) -> DatabaseStream:
        """The rows of a large result, one after the other, about 256 KiB in memory at a time."""
        ...


class DatabaseStream(Protocol):
    """`ctx.db.stream(…)`: rows as `fetch_all` gives them; it ends with its last row, its loop, its block, or the message."""

    def __iter__(self) -> Iterator[Row]: ...
    def __next__(self) -> Row: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

    def close(self) -> None:
        """Give the rest up."""
        ...


class DatabaseChannel(Transaction, Protocol):
    """`ctx.db`: statements that run on the loop; each call is its own transaction unless inside `transaction()`."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commit at the end of the block, roll back when it raises."""
        ...


class AsyncBusChannel(Protocol):
    """`ctx.bus` in an async handler; `publish` only keeps the message, so it is not awaited."""

    def publish(self, queue_or_payload: Any, payload: Any = ..., **options: Unpack[Options]) -> str:
        """As `BusChannel.publish`."""
        ...

    async def publish_now(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it says what has become of the message
        **options: Unpack[Options],
    ) -> str:
        """As `BusChannel.publish_now`."""
        ...


class AsyncTransaction(Protocol):
    """As `Transaction`, awaited."""

    async def execute(self, statement: Statement, parameters: Parameters = None) -> int:
        """As `Transaction.execute`."""
        ...

    async def fetch_all(self, statement: Statement, parameters: Parameters = None) -> list[Row]:
        """As `Transaction.fetch_all`."""
        ...

    async def fetch_one(self, statement: Statement, parameters: Parameters = None) -> Row | None:
        """As `Transaction.fetch_one`."""
        ...

    def stream(self, statement: Statement, parameters: Parameters = None) -> AsyncDatabaseStream:
        """As `Transaction.stream`; the statement is sent with the first row that is asked for."""
        ...


class AsyncDatabaseStream(Protocol):
    """As `DatabaseStream`, awaited."""

    def __aiter__(self) -> AsyncIterator[Row]: ...
    async def __anext__(self) -> Row: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...

    async def aclose(self) -> None:
        """Give the rest up."""
        ...


class AsyncDatabaseChannel(AsyncTransaction, Protocol):
    """`ctx.db` in an async handler."""

    def transaction(self) -> AbstractAsyncContextManager[AsyncTransaction]:
        """Commit at the end of the block, roll back when it raises."""
        ...


class RowStream(Protocol):
    """`ctx.stream(…)`: rows one after the other; it ends with its last row, with its block or with the message."""

    def __iter__(self) -> Iterator[SQLRow[Any]]: ...
    def __next__(self) -> SQLRow[Any]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

    def close(self) -> None:
        """Give the rest up."""
        ...


class WorkerDatabase(Protocol):
    """The worker's own persistent connection, as the context reaches it."""

    @property
    def connection(self) -> Connection:
        """The SQLAlchemy connection, inside this message's transaction."""
        ...

    @property
    def session(self) -> Session:
        """An ORM session on the same connection and transaction."""
        ...

    def stream(self, statement: str | Executable, parameters: Any = None) -> RowStream:
        """The rows of a large result, over a connection of its own."""
        ...


class Context:
    """The second argument of a handler that runs in a worker process."""

    __slots__ = ("_database", "bus", "db", "log", "message", "state")

    def __init__(
        self,
        message: MessageInfo,
        *,
        bus: BusChannel,
        db: DatabaseChannel,
        database: WorkerDatabase,
        state: SimpleNamespace,
        log: FilteringBoundLogger,
    ) -> None:
        self.message = message
        self.bus = bus
        self.db = db
        self.state = state
        """What `@app.on_worker_start` put there; one a worker process."""
        self.log = log
        """A structlog logger with message id, queue, handler, slot and attempt bound."""
        self._database = database

    @property
    def redelivered_after(self) -> str | None:
        """`"commit unknown"` when an earlier run was cut off while it committed: look whether its work is there."""
        return self.message.redelivered_after

    @property
    def connection(self) -> Connection:
        """The worker's own persistent SQLAlchemy connection, in this message's transaction.

        Raises `ConfigurationError` when no `database.url` is set.
        """
        return self._database.connection

    @property
    def session(self) -> Session:
        """An ORM session on `connection`, flushed and committed with it."""
        return self._database.session

    def stream(self, statement: str | Executable, parameters: Any = None) -> RowStream:
        """The rows of a large result, a chunk in memory at a time: SQL with `:names`, or a SQLAlchemy select.

        They come over a second connection that cannot write and sees only what is committed, so `ctx.connection` stays
        free for statements meanwhile. Raises `ConnectionMisused` for more at once than `database.stream_connections`.
        """
        return self._database.stream(statement, parameters)


class AsyncContext:
    """The second argument of an `async def` handler; it runs on the loop."""

    __slots__ = ("bus", "db", "log", "message", "state")

    def __init__(
        self,
        message: MessageInfo,
        *,
        bus: AsyncBusChannel,
        db: AsyncDatabaseChannel,
        state: SimpleNamespace,
        log: FilteringBoundLogger,
    ) -> None:
        self.message = message
        self.bus = bus
        self.db = db
        self.state = state
        self.log = log

    @property
    def redelivered_after(self) -> str | None:
        """As `Context.redelivered_after`."""
        return self.message.redelivered_after
