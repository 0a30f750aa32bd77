"""A PEP 249 cursor's statements, run on a connection of the loop's side: on the writer's thread, or on a reader's.

Unlike `ctx.db`'s they are run as the driver runs them, without a savepoint: whoever uses a driver's interface
counts on its behaviour. Rows are read as the worker asks for them; an open cursor stays in `Cursors`, which lives
and dies with the transaction or the reader that it reads from.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from msgspec import Raw
from msgspec.msgpack import Ext

from penstock.channels.db.calls import AROUND_BYTES, CHUNK_BYTES, Chunk, Failed, Ran, Run
from penstock.channels.db.faults import over
from penstock.channels.db.rows import fitting
from penstock.channels.db.sqlite.opening import GuardedConnection
from penstock.channels.db.sqlite.pragmas import check_pragma
from penstock.channels.db.statements import ALONE, GROUPED, REFUSED_VERBS, may_write, verb_of, why_refused
from penstock.errors import DatabaseBusy, DatabaseError, PenstockError

#: msgpack's type of a text that crosses as its bytes.
RAW_TEXT: Final = 1
_MOST_ROWS: Final = 1024
_SAVEPOINT: Final = re.compile(
    r"""\s*(?P<verb>SAVEPOINT|RELEASE|ROLLBACK)\b(?:\s+TRANSACTION\b)?(?:\s+TO\b)?(?:\s+SAVEPOINT\b)?\s*
    (?P<name>\w+|"(?:[^"]|"")+"|'(?:[^']|'')+'|`[^`]+`|\[[^\]]+\])\s*;?\s*""",
    re.IGNORECASE | re.VERBOSE,
)
_SAVEPOINT_VERBS: Final = {"SAVEPOINT": "SAVEPOINT", "RELEASE": "RELEASE", "ROLLBACK": "ROLLBACK TO"}
_INSERTS: Final = frozenset({"INSERT", "REPLACE"})

_encode: Final = msgspec.msgpack.Encoder().encode


@dataclass(slots=True)
class OpenCursor:
    """A result that is not read to its end."""

    cursor: sqlite3.Cursor
    has_raw_text: bool
    wanted: int = 1
    """Rows to ask the database for next: one first, then as many as fill a quarter of a chunk."""
    kept: list[Any] = field(default_factory=list)
    """Read, and too large for the last chunk."""
    is_read: bool = False
    """The database has no more."""


@dataclass(slots=True)
class Cursors:
    """The open cursors of one connection; touched by its thread alone."""

    held: dict[int, OpenCursor] = field(default_factory=dict)

    def close(self, *numbers: int) -> None:
        """Close these; harmless for those that are closed."""
        for number in numbers:
            found = self.held.pop(number, None)
            if found is not None:
                found.cursor.close()

    def close_all(self) -> None:
        """Close what is open: it would keep the transaction from ending."""
        self.close(*self.held)


def run(connection: GuardedConnection, cursors: Cursors, asked: Run, number: int, *, limit_bytes: int) -> Ran:
    """Run a statement and read its first rows; what is left to read is open as `number`.

    Raises what the driver raises, `DatabaseError` for what cannot cross.
    """
    if connection.stop:
        raise sqlite3.OperationalError("interrupted")
    changes = connection.total_changes
    verb = verb_of(asked.statement)
    cursor = _executed(connection, asked, verb)
    columns = None if cursor.description is None else [column[0] for column in cursor.description]
    last_row_id = cursor.lastrowid if verb in _INSERTS and not asked.is_many else None
    if columns is None:
        cursor.close()
        chunk = Chunk([], is_last=True, row_count=cursor.rowcount)
    else:
        opened = OpenCursor(cursor, asked.has_raw_text)
        cursors.held[number] = opened
        room_bytes = limit_bytes - len(_encode(columns))
        chunk = fetch(connection, cursors, number, limit_bytes=room_bytes)
    return Ran(
        columns,
        chunk,
        None if chunk.is_last else number,
        # After OR IGNORE the connection still knows its last row, which may be another caller's.
        last_row_id if chunk.rows or chunk.row_count > 0 else None,
        connection.total_changes - changes if may_write(asked.statement) else 0,
    )


def fetch(connection: GuardedConnection, cursors: Cursors, number: int, *, limit_bytes: int) -> Chunk:
    """The next rows of an open cursor, which is closed with its last one.

    Raises `DatabaseError` when it is not open any more, or one row is larger than a frame.
    """
    found = cursors.held.get(number)
    if found is None:
        raise over()
    try:
        if found.has_raw_text:
            connection.text_factory = _raw_text
        chunk = _read(found, limit_bytes - AROUND_BYTES)
    except BaseException:
        cursors.close(number)
        raise
    finally:
        if found.has_raw_text:
            connection.text_factory = str
    if chunk.is_last:
        cursors.close(number)
    return chunk


def close(_connection: GuardedConnection, cursors: Cursors, number: int) -> None:
    """Close a cursor; harmless when it is closed."""
    cursors.close(number)


def run_whole(connection: GuardedConnection, asked: Run, *, limit_bytes: int) -> Ran:
    """As `run`, in a transaction of its own: all rows at once, because it is committed before the worker has them."""
    cursors = Cursors()
    try:
        ran = run(connection, cursors, asked, 0, limit_bytes=limit_bytes)
        rows, chunk = list(ran.chunk.rows), ran.chunk
        left = limit_bytes - AROUND_BYTES - _size(rows)
        while not chunk.is_last:
            chunk = fetch(connection, cursors, 0, limit_bytes=max(left, AROUND_BYTES + 1))
            rows += chunk.rows
            left -= _size(chunk.rows)
            if left < 0:
                raise too_large(limit_bytes)
        whole = Chunk(rows, is_last=True, row_count=chunk.row_count)
        return Ran(ran.columns, whole, None, ran.last_row_id, ran.changes)
    finally:
        cursors.close_all()


def failed(error: Exception, transaction: int | None = None, *, was_inside: bool = False) -> Failed:
    """What the worker raises again; `transaction` is what is open after it, `was_inside` whether one was before.

    Raises what is no fault of the statement: a closed channel.
    """
    if isinstance(error, DatabaseBusy):
        # A file that was replaced is not locked; but it may be tried again, as one that is.
        text = (
            str(error) if isinstance(error.__cause__, FileNotFoundError) else f"database is locked: {error}"
        )
        return Failed("OperationalError", text, sqlite3.SQLITE_BUSY, "SQLITE_BUSY", transaction)
    if isinstance(error, DatabaseError):
        cause = error.__cause__
        if isinstance(cause, Exception) and not isinstance(cause, PenstockError):
            return failed(cause, transaction)
        is_lost = was_inside and transaction is None
        return Failed(error.kind, str(error), transaction=transaction, is_lost=is_lost)
    if not isinstance(error, sqlite3.Error | sqlite3.Warning | ValueError | OverflowError | TypeError):
        raise error
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_AUTH or str(error).startswith("not authorized to use function"):
        words = (
            "temporary tables, transactions inside a statement, ATTACH, load_extension and settings do not cross the "
            "database channel: its connections are shared by all workers; nothing was run"
        )
        return Failed("NotSupportedError", words, code, "SQLITE_AUTH", transaction)
    code_name: str | None = getattr(error, "sqlite_errorname", None)
    return Failed(type(error).__name__, str(error), code, code_name, transaction)


def too_large(limit_bytes: int) -> DatabaseError:
    """For what no frame can carry."""
    msg = (
        f"a row, or the rows that a write returns outside a transaction, exceed a frame ({limit_bytes} bytes, "
        "limits.frame_bytes): raise the limit, or run it in a transaction, where rows cross in chunks"
    )
    return DatabaseError(msg, "DataError")


def _executed(connection: GuardedConnection, asked: Run, verb: str) -> sqlite3.Cursor:
    if verb == "PRAGMA":
        # A PRAGMA looks into the schema as this connection last saw it; a query looks whether that is old.
        connection.control("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        return connection.control(check_pragma(asked.statement))
    if verb in _SAVEPOINT_VERBS:
        return connection.control(_savepoint(asked.statement))
    if verb and verb not in GROUPED and verb not in ALONE and verb not in REFUSED_VERBS:
        # What SQLite would say; whatever it is, it does not get near it.
        error = sqlite3.OperationalError(f'near "{verb}": syntax error')
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_ERROR, "SQLITE_ERROR"
        raise error
    if verb in REFUSED_VERBS:
        raise DatabaseError(
            f"{verb} does not cross the channel: {why_refused(verb)}; nothing was run", "NotSupportedError"
        )
    cursor = connection.cursor()
    if asked.is_many:
        return cursor.executemany(asked.statement, asked.parameters)
    return cursor.execute(asked.statement, asked.parameters or ())


def _savepoint(statement: str) -> str:
    # Made anew from its two words: nothing else of the text is run past the guard.
    found = _SAVEPOINT.fullmatch(statement)
    if found is None:
        raise DatabaseError(
            "a savepoint is written alone: SAVEPOINT name, RELEASE name, ROLLBACK TO name",
            "NotSupportedError",
        )
    return f"{_SAVEPOINT_VERBS[found['verb'].upper()]} {found['name']}"


def _read(found: OpenCursor, limit_bytes: int) -> Chunk:
    most = min(CHUNK_BYTES, limit_bytes)
    pieces: list[Raw] = []
    size = 0
    while size < most:
        rows = found.kept or found.cursor.fetchmany(found.wanted)
        found.is_read |= not found.kept and len(rows) < found.wanted
        taken, encoded = fitting(rows, limit_bytes - size)
        if not taken and rows and not pieces:
            raise too_large(limit_bytes)
        if taken:
            pieces.append(Raw(encoded))
            size += len(encoded)
            found.wanted = max(
                1, min(_MOST_ROWS, found.wanted * 8, CHUNK_BYTES * taken // (4 * len(encoded)))
            )
        found.kept = rows[taken:]
        if found.kept:
            break
        if found.is_read:
            return Chunk(pieces, is_last=True, row_count=found.cursor.rowcount)
    return Chunk(pieces, is_last=False)


def _size(pieces: list[Raw]) -> int:
    return sum(memoryview(piece).nbytes for piece in pieces)


def _raw_text(raw: bytes) -> Ext:
    return Ext(RAW_TEXT, raw)
