"""What the database channel's calls carry, typed: the stub writes them, the service reads them."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from msgspec import Raw, Struct

SERVICE: Final = "db"
#: What one chunk brings: enough that a crossing (0.2 ms) does not count, little enough to hold N times.
CHUNK_BYTES: Final = 256 * 1024
#: Of a frame, for what stands around the rows of an answer.
AROUND_BYTES: Final = 256

#: What a caller wants of a statement: how many rows it changed, all rows, the first, or all that a cursor knows.
Want: TypeAlias = Literal["execute", "fetch_all", "fetch_one", "cursor"]


class Query(Struct, frozen=True, array_like=True):
    """One statement of `ctx.db`; `transaction` is the number that `begin` gave, None for one of its own.

    On a server its caller may choose the number, below zero, and say `begins` with its first statement, in place of a
    call of `begin`; said again it is harmless.

    `execute` takes a list of mappings too: each is run, all in one transaction, and the answer is the sum. `stream`
    answers `Ran` and leaves its cursor open for `fetch` and `drop`; what goes wrong is raised.
    """

    statement: str
    # dict[str, Stored] | list[Stored] | None, which msgspec need not check: the stub made them.
    parameters: Any = None
    transaction: int | None = None
    begins: bool = False


class Run(Struct, frozen=True, array_like=True):
    """One statement of a PEP 249 cursor, in the driver's own paramstyle."""

    statement: str
    # As in `Query`; a list of them when `is_many`. None on a server: % is not special, as in its driver.
    parameters: Any = None
    is_many: bool = False
    transaction: int | None = None
    """The open transaction; None for none."""
    begins: bool = False
    """Begin a transaction with it."""
    has_raw_text: bool = False
    """Text crosses as bytes, for a `text_factory`."""
    dropped: list[int] = []
    """Cursors that nobody holds any more."""
    isolation: str | None = None
    """Of the transaction that `begins`; servers only."""
    is_read_only: bool = False
    """On servers of that transaction; on SQLite of a statement outside of one."""
    is_deferrable: bool = False
    """Of the transaction; PostgreSQL."""


class Fetch(Struct, frozen=True, array_like=True):
    """More rows of a cursor that is open on the loop's side."""

    cursor: int


class End(Struct, frozen=True, array_like=True):
    """The method `end`, on servers: as `commit` and `rollback`, answered by None or `Failed`."""

    transaction: int
    is_commit: bool


class Chunk(Struct, frozen=True, array_like=True, tag=True):
    """Rows, packed; nothing is read ahead of it until the worker asks again."""

    rows: list[Raw]
    is_last: bool
    row_count: int = -1
    """As the driver counts, once the last row is read."""


class Ran(Struct, frozen=True, array_like=True, tag=True):
    """What a cursor knows after a statement."""

    columns: list[str] | None
    """None: a statement that gives no rows."""
    chunk: Chunk
    cursor: int | None = None
    """Set while there is more to fetch."""
    last_row_id: int | None = None
    changes: int = 0
    """Rows changed, triggers and foreign keys included."""
    transaction: int | None = None
    """Open after it."""
    types: list[list[Any]] = []
    """What PEP 249's description says of each column after its name; servers only."""
    status: str | None = None
    """PostgreSQL's command tag."""


class Failed(Struct, frozen=True, array_like=True, tag=True):
    """What the driver raised, to be raised again in the worker."""

    name: str
    text: str
    code: int | None = None
    """SQLite's extended result code, with its name."""
    code_name: str | None = None
    transaction: int | None = None
    """Open after it."""
    is_lost: bool = False
    """The transaction was ended by somebody else than the statement; its holder has to hear of it."""
    arguments: list[Any] = []
    """What the driver's exception was made of; servers only, as are the next three."""
    sqlstate: str | None = None
    diagnostics: dict[str, str | None] = {}
    """PostgreSQL: the fields of the driver's Diagnostic by their names."""
    is_disconnect: bool = False
    """The connection to the server is gone."""
