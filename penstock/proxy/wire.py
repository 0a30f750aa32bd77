"""What crosses between a thread and its subprocess: one request, then one answer, or several for a whole result."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from penstock.proxy.values import extension


class Boot(Struct, frozen=True, array_like=True, tag=True):
    """The first frame: what to connect to. Passwords travel here and in no command line."""

    driver: str
    database: str | None
    options: dict[str, Any]
    writes: bool
    """SQLite: False for a connection that only reads."""
    frame_bytes: int
    idle_s: float
    """A transaction without a statement for so long is rolled back."""
    results: int
    """So many may be half read at once."""


class Statement(Struct, frozen=True, array_like=True, tag=True):
    """Run one statement."""

    sql: str
    parameters: Any
    many: bool = False
    cursor: int = 0
    """Under which number the rest of the rows is fetched; 0: send all of them."""
    commits: bool = False
    """It is a transaction of its own."""


class Fetch(Struct, frozen=True, array_like=True, tag=True):
    """Send more rows of an open cursor."""

    cursor: int


class Drop(Struct, frozen=True, array_like=True, tag=True):
    """Cursors that nobody will ask for any more; the one thing that is not answered."""

    cursors: list[int]


class Begin(Struct, frozen=True, array_like=True, tag=True):
    """A transaction begins; whatever was left of an earlier one is rolled back."""


class End(Struct, frozen=True, array_like=True, tag=True):
    """The transaction ends."""

    commit: bool


class Run(Struct, frozen=True, array_like=True, tag=True):
    """Call a function with the connection."""

    module: str
    name: str
    arguments: list[Any]
    commits: bool


Request: TypeAlias = Boot | Statement | Fetch | Drop | Begin | End | Run


class Result(Struct, frozen=True, array_like=True, tag=True):
    """What a statement gave, with its first rows."""

    description: tuple[tuple[Any, ...], ...] | None
    rowcount: int
    lastrowid: Any
    rows: list[tuple[Any, ...]]
    more: bool


class Rows(Struct, frozen=True, array_like=True, tag=True):
    """More rows."""

    rows: list[tuple[Any, ...]]
    more: bool


class Value(Struct, frozen=True, array_like=True, tag=True):
    """What a function returned; nothing for a beginning or an end."""

    value: Any = None


class Failed(Struct, frozen=True, array_like=True, tag=True):
    """An exception, as words."""

    module: str
    """`driver` for one of the driver's."""
    name: str
    arguments: list[Any]
    code: int | None
    """SQLite's extended error code."""
    traceback: str


Answer: TypeAlias = Result | Rows | Value | Failed

#: Before each answer stands what follows it, so that a subprocess is free for others before its rows are decoded:
#: another part of the same answer; nothing; nothing ever, because the connection is broken.
MORE: Final = b"+"
DONE: Final = b"."
LAST: Final = b"!"

encode: Final = msgspec.msgpack.Encoder().encode
decode_request: Final = msgspec.msgpack.Decoder(Request, ext_hook=extension).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer, ext_hook=extension).decode
