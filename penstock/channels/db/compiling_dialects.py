"""SQLAlchemy's dialects as a worker compiles with them, which has no connection to ask and no driver to speak to.

What a statement is compiled to, and what a type makes of a value, is SQLAlchemy's own; changed is only what leans on a
driver: values cross as plain Python, so they are not wrapped in a driver's classes, and no driver's type codes come
with a result.
"""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect

#: What a server is asked, once a process: it says by itself which database it is.
WHICH: Final = "SELECT version() AS answer"
_AND: Final = {
    "mysql": "SELECT concat(coalesce(database(), ''), ' ', @@sql_mode) AS answer",
    "postgresql": "SELECT concat(current_schema(), ' ', current_setting('standard_conforming_strings')) AS answer",
}
#: What `Dialect.initialize` takes: a connection that is never used.
_NOBODY: Final = SimpleNamespace(connection=SimpleNamespace(dbapi_connection=None))


def sqlite_dialect() -> DefaultDialect:
    """SQLite's, of the library that this process has: the loop's is the same."""
    made = SQLiteDialect_pysqlite(use_insertmanyvalues=False)
    made.default_schema_name = "main"
    return made


def question_after(version: str) -> str:
    """What to ask a server next that gave this answer to `WHICH`."""
    return _AND[_backend(version)]


def server_dialect(version: str, answer: str) -> DefaultDialect:
    """The one of the server that answered so."""
    schema, _, mode = answer.rpartition(" ")
    made: DefaultDialect
    if _backend(version) == "postgresql":
        made = _PostgreSQL(version, schema, is_backslash_plain=mode == "on")
    else:
        made = _MySQL(version, schema, mode)
    made.initialize(_NOBODY)  # type: ignore[arg-type]
    return made


def _backend(version: str) -> str:
    return "postgresql" if version.startswith("PostgreSQL") else "mysql"


class _MySQL(MySQLDialect_pymysql):
    supports_statement_cache = True

    def __init__(self, version: str, schema: str, mode: str) -> None:
        super().__init__(use_insertmanyvalues=False)
        self._version, self._schema, self._mode = version, schema, mode

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:  # noqa: ARG002 - SQLAlchemy's shape
        return self._parse_server_version(self._version)

    def _detect_charset(self, connection: Any) -> str:  # noqa: ARG002
        return "utf8mb4"

    def _detect_sql_mode(self, connection: Any) -> None:  # noqa: ARG002
        self._sql_mode = self._mode

    def _detect_casing(self, connection: Any) -> int:  # noqa: ARG002
        self._casing = 0
        return 0

    def _get_default_schema_name(self, connection: Any) -> str:  # noqa: ARG002
        return self._schema

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:  # noqa: ARG002
        """Nobody asks."""
        return None


class _PlainNumeric(sqltypes.Numeric[Any]):
    """By the value: the server's type code did not come with it."""

    def bind_processor(self, dialect: Any) -> None:
        """The driver writes it."""

    def result_processor(self, dialect: Any, coltype: object) -> Any:  # noqa: ARG002
        """A Decimal, or a float where the column says so."""
        return _number_of(self)


class _PlainFloat(sqltypes.Float[Any]):
    def bind_processor(self, dialect: Any) -> None:
        """The driver writes it."""

    def result_processor(self, dialect: Any, coltype: object) -> Any:  # noqa: ARG002
        """As `_PlainNumeric`."""
        return _number_of(self)


class _PlainJSON(JSON):
    """Crosses as its text, of which the server makes what the column is."""

    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        """SQLAlchemy's own, for a driver that takes text."""
        return _json_as_text(self, dialect)

    def result_processor(self, dialect: Any, coltype: object) -> None:
        """It comes parsed. SQLAlchemy 2.0 would parse it again."""


class _PlainJSONB(JSONB):
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        """As `_PlainJSON`."""
        return _json_as_text(self, dialect)

    def result_processor(self, dialect: Any, coltype: object) -> None:
        """As `_PlainJSON`."""


def _json_as_text(type_: Any, dialect: Any) -> Any:
    generic: Any = sqltypes.JSON
    return generic.bind_processor(type_, dialect)


class _PostgreSQL(PGDialect_psycopg):
    supports_statement_cache = True
    # As text; what is read comes parsed.
    supports_native_json_serialization = False

    colspecs = {  # noqa: RUF012 - SQLAlchemy's shape
        **PGDialect_psycopg.colspecs,
        sqltypes.Numeric: _PlainNumeric,
        sqltypes.Float: _PlainFloat,
        sqltypes.JSON: _PlainJSON,
        JSON: _PlainJSON,
        JSONB: _PlainJSONB,
    }

    def __init__(self, version: str, schema: str, *, is_backslash_plain: bool) -> None:
        options: Any = {"use_insertmanyvalues": False, "use_native_hstore": False}
        PGDialect_psycopg.__init__(self, **options)  # type: ignore[no-untyped-call]
        self._version, self._schema, self._is_backslash_plain = version, schema, is_backslash_plain

    def _get_server_version_info(self, connection: Any) -> tuple[int, ...]:  # noqa: ARG002
        digits = self._version.split()[1].split(".")
        return tuple(int(number) for number in digits if number.isdigit())

    def _set_backslash_escapes(self, connection: Any) -> None:  # noqa: ARG002
        self._backslash_escapes = not self._is_backslash_plain

    def _get_default_schema_name(self, connection: Any) -> str:  # noqa: ARG002
        return self._schema

    def get_default_isolation_level(self, dbapi_conn: Any) -> Any:  # noqa: ARG002
        """Nobody asks."""
        return None


def _number_of(type_: Any) -> Any:
    if not type_.asdecimal:
        return lambda value: None if value is None else float(value)
    written = f"%.{type_._effective_decimal_return_scale}f"  # noqa: SLF001 - as SQLAlchemy's own types do

    def decimal_of(value: Any) -> Any:
        return Decimal(written % value) if isinstance(value, float) else value

    return decimal_of
