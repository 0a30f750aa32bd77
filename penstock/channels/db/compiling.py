"""SQLAlchemy's statements as they cross: compiled where they were made, so that only SQL and plain values travel.

```
 statement ─▶ a connection of SQLAlchemy's that leads nowhere ─▶ what a driver would have been given ─▶ the channel
                 (its cache of compiled statements, defaults, literal and expanding parameters, types)
 rows ◀─ the types of the statement's columns ◀─────────────────────────────────────────────── the channel
```
Through SQLAlchemy's own execution and not its compiler alone, so that a statement is what it would be on
`ctx.connection`, Python-side defaults and listeners included.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

from sqlalchemy import CompoundSelect, Engine, Executable, Insert, Pool, StaticPool, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import SQLAlchemyError, StatementError

from penstock.channels.db.server.quoting import TEXT
from penstock.errors import DatabaseError, DeadlineExceeded

#: Compiled statements that are kept, as many as SQLAlchemy keeps by itself.
_CACHED: Final = 500
#: In a driver's statement: what is text, a doubled %, a parameter by name or by place, a colon.
_IN_DRIVER_SQL: Final = {
    backend: re.compile(rf"(?P<text>{text})|%%|(?:%\((?P<name>[^)]*)\)s|%s)(?P<cast>::)?|::|:=|:", re.DOTALL)
    for backend, text in TEXT.items()
}


class Compiled(NamedTuple):
    """What a driver would have been given, and how its rows are made."""

    sql: str
    parameters: Any
    """By place or by name, as the SQL has them; a list of such when there are several."""
    rows: RowShape | None
    """None: the rows are taken as they come."""


class RowShape:
    """The names and types of a statement's columns."""

    def __init__(self, context: Any, columns: Sequence[Any], *, is_ordered: bool) -> None:
        self._context = context
        self._columns = columns
        self._is_ordered = is_ordered

    def of(self, arrived: Sequence[str]) -> tuple[list[str], list[Callable[[Any], Any] | None]]:
        """For the columns that the database gave: a name and, where the type has one, what makes its value, each."""
        if self._is_ordered and len(arrived) == len(self._columns):
            return [column.keyname for column in self._columns], [
                self._processor(column) for column in self._columns
            ]
        by_name = {column.keyname: column for column in self._columns}
        return list(arrived), [self._processor(by_name.get(name)) for name in arrived]

    def _processor(self, column: Any) -> Callable[[Any], Any] | None:
        if column is None:
            return None
        found: Callable[[Any], Any] | None = self._context.get_result_processor(
            column.type, column.keyname, None
        )
        return found


class Compiler:
    """Statements for one database; any thread may ask.

    Compiled statements are kept by SQLAlchemy's own keys, the 500 used last.
    """

    def __init__(self, dialect: DefaultDialect) -> None:
        # The driver's module, of which SQLAlchemy wants no more than this.
        dialect.dbapi = SimpleNamespace(Error=sqlite3.Error, Binary=bytes)  # type: ignore[assignment]
        self._backend = dialect.name
        self._recorder = _Recorder()
        engine = Engine(
            _pool(),
            dialect,
            make_url(f"{dialect.name}://"),
            query_cache_size=_CACHED,
            # They may be secret, and errors are logged.
            hide_parameters=True,
        )
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(engine, name, getattr(self._recorder, name))
        self._connection = engine.connect()
        self._lock = threading.RLock()

    def compile(self, statement: Any, parameters: Any) -> Compiled:
        """Raises `DatabaseError` for what cannot be compiled, and for what only a session can run."""
        _check(statement)
        if isinstance(statement, Insert):
            # Else a statement of its own would be run for a default in SQL, and the new key asked back.
            statement = statement.inline()
        with self._lock:
            driver_sql, given, context = self._recorded(statement, parameters)
        is_many = isinstance(given, list)
        if self._backend == "sqlite":
            return Compiled(
                driver_sql, [list(one) for one in given] if is_many else list(given), _shape(context)
            )
        sql, keys = _as_named(driver_sql, self._backend)
        named = [_named(keys, one) for one in given] if is_many else _named(keys, given)
        return Compiled(sql, named, _shape(context))

    def _recorded(self, statement: Any, parameters: Any) -> tuple[str, Any, Any]:
        # A default may be a function that comes here again.
        around, self._recorder.found = self._recorder.found, []
        raised: Exception | None = None
        try:
            self._connection.execute(statement, parameters)
        except Exception as error:  # noqa: BLE001 - of types and defaults, which are the application's
            raised = error
        finally:
            found, self._recorder.found = self._recorder.found, around
        cause = _cause(raised)
        if isinstance(cause, DeadlineExceeded):
            # Not the statement's fault: it comes out of whatever code runs at that moment.
            raise cause
        # A schema's statement has no other beside it; a function's is the SELECT around it.
        if len(found) == 1 and (raised is None or found[0][2].invoked_statement is statement):
            return found[0]
        if found:
            raise DatabaseError(
                "a default of the statement runs a statement by itself, which does not cross the database channel: use "
                "ctx.connection; nothing was run",
                "NotSupportedError",
            ) from raised
        raise _refused(statement, cause) from raised


class _Recorder:
    """Where a driver would be."""

    def __init__(self) -> None:
        self.found: list[tuple[str, Any, Any]] = []

    def do_execute(self, _cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        self.found.append((statement, parameters, context))
        # True: there is nothing more to do.
        return True

    def do_executemany(self, _cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        self.found.append((statement, list(parameters), context))
        return True

    def do_execute_no_params(self, _cursor: Any, statement: str, context: Any) -> bool:
        self.found.append((statement, (), context))
        return True


class _NoCursor:
    """What SQLAlchemy, and whoever listens to new connections, asks of a cursor: it runs nothing and has no rows."""

    description = None
    rowcount = -1
    lastrowid = None

    def fetchall(self) -> list[Any]:
        """None."""
        return []

    fetchmany = fetchall

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


class _NoConnection:
    """Of a driver, for a pool; an application's listeners may set it up as they do with every connection."""

    def cursor(self, *_: Any) -> _NoCursor:
        """One that runs nothing."""
        return _NoCursor()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*_: Any, **__: Any) -> None:
    """Whatever was asked for."""


def _pool() -> Pool:
    return StaticPool(_NoConnection, reset_on_return=None)  # type: ignore[arg-type]


def _check(statement: Any) -> None:
    if not isinstance(statement, Executable):
        kind = type(statement).__qualname__
        raise DatabaseError(
            f"a statement of type {kind} is refused: ctx.db takes SQL as str, or a statement of SQLAlchemy's such as "
            "select(…), insert(…), text(…); nothing was run",
            "ProgrammingError",
        )
    for part in statement.selects if isinstance(statement, CompoundSelect) else (statement,):
        for column in getattr(part, "column_descriptions", None) or ():
            if _is_entity(column):
                raise DatabaseError(
                    f"{column['name'] or 'an alias'} is selected as an entity of the ORM, and ctx.db gives rows, not "
                    "objects: use ctx.session for objects, or select its columns; nothing was run",
                    "ProgrammingError",
                )


def _is_entity(column: Mapping[str, Any]) -> bool:
    entity, expression = column.get("entity"), column.get("expr")
    return entity is not None and (expression is entity or not hasattr(expression, "comparator"))


def _cause(error: Exception | None) -> BaseException | None:
    # SQLAlchemy's own words around what a type or a default raised would repeat the whole statement.
    return error.orig if isinstance(error, StatementError) and error.orig is not None else error


def _refused(statement: Any, cause: BaseException | None) -> DatabaseError:
    kind = type(statement).__qualname__
    if cause is None:
        return DatabaseError(f"{kind} is no statement that runs alone; nothing was run", "ProgrammingError")
    words = " ".join(str(cause).split())
    name = "" if isinstance(cause, SQLAlchemyError) else f"{type(cause).__name__}: "
    return DatabaseError(f"{kind} cannot be compiled: {name}{words}; nothing was run", "ProgrammingError")


def _shape(context: Any) -> RowShape | None:
    compiled = context.compiled
    columns = getattr(compiled, "_result_columns", None)
    if not columns:
        return None
    return RowShape(context, columns, is_ordered=compiled._ordered_columns)  # noqa: SLF001 - for who reads results


@lru_cache(maxsize=_CACHED)
def _as_named(driver_sql: str, backend: str) -> tuple[str, tuple[str | int, ...]]:
    """A driver's statement as `ctx.db` takes it, and which parameter is :p0, :p1 …: its name, or its place."""
    keys: list[str | int] = []

    def written(found: re.Match[str]) -> str:
        if found["text"] or found[0] in ("%%", "::", ":="):
            return found[0].replace("%%", "%")
        if found[0] == ":":
            return r"\:"
        key = found["name"] if found["name"] is not None else len(keys)
        if key not in keys:
            keys.append(key)
        # Apart from what stands beside it, which would be read as more of the name.
        before = " " if driver_sql[found.start() - 1 : found.start()].isalnum() else ""
        after = " ::" if found["cast"] else " " if driver_sql[found.end() : found.end() + 1].isalnum() else ""
        return f"{before}:p{keys.index(key)}{after}"

    return _IN_DRIVER_SQL[backend].sub(written, driver_sql), tuple(keys)


def _named(keys: Sequence[str | int], given: Any) -> dict[str, Any]:
    return {f"p{place}": given[key] for place, key in enumerate(keys)}
