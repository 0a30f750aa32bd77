"""What a handler gives to `ctx.db`, made ready to cross: SQL as it is, a statement of SQLAlchemy's compiled.

SQLAlchemy is loaded when one of its statements comes, and not for text.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from penstock.app.context import Statement
from penstock.channels.db.exact import exact_parameters
from penstock.channels.db.rows import Shape
from penstock.channels.db.statements import check_text, has_placeholder
from penstock.channels.db.values import stored_parameters
from penstock.errors import DatabaseError

if TYPE_CHECKING:
    from penstock.channels.db.compiling import Compiler

#: What is no sequence of rows, nor of parameters.
_SCALARS: Final = (str, bytes, bytearray, memoryview)


class Prepared(NamedTuple):
    """A statement as it crosses."""

    sql: str
    parameters: Any
    """A list of each row's when `is_many`."""
    is_many: bool = False
    shape: Shape | None = None
    """Of its rows, where the statement knows their types."""


class Preparer:
    """For the database of one process; `is_server`: its values keep their types.

    A server has to say which it is before statements of SQLAlchemy's can be compiled for it: ask it `question(…)` and
    `tell` what it answered, until there is no question left.
    """

    def __init__(self, *, is_server: bool) -> None:
        self._is_server = is_server
        self._parameters = exact_parameters if is_server else stored_parameters
        self._compiler: Compiler | None = None
        self._version: str | None = None

    def question(self, statement: Statement) -> str | None:
        """What the database has to be asked before the statement can be prepared; None for nothing."""
        if isinstance(statement, str) or self._compiler is not None or not _is_of_sqlalchemy(statement):
            return None
        # Late, as below: a handler that writes SQL does not pay for it.
        from penstock.channels.db import compiling_dialects as dialects
        from penstock.channels.db.compiling import Compiler

        if not self._is_server:
            self._compiler = Compiler(dialects.sqlite_dialect())
            return None
        return dialects.WHICH if self._version is None else dialects.question_after(self._version)

    def tell(self, question: str, row: Mapping[str, Any] | None) -> None:
        """The answer to a question, which others may have asked meanwhile, too."""
        from penstock.channels.db import compiling_dialects as dialects
        from penstock.channels.db.compiling import Compiler

        answer = str((row or {}).get("answer", ""))
        if question == dialects.WHICH:
            self._version = answer
        elif self._version is not None and self._compiler is None:
            self._compiler = Compiler(dialects.server_dialect(self._version, answer))

    def prepare(self, statement: Statement, parameters: Any, *, gives_rows: bool = True) -> Prepared:
        """Raises `DatabaseError` for what cannot cross, and for several rows of parameters where rows are wanted."""
        if isinstance(statement, str):
            prepared = self._of_text(statement, parameters)
        else:
            prepared = self._of_sqlalchemy(statement, parameters)
        if prepared.is_many and gives_rows:
            msg = "several rows of parameters are for execute(), which gives no rows back; nothing was run"
            raise DatabaseError(msg, "ProgrammingError")
        return prepared

    def _of_text(self, statement: str, parameters: Any) -> Prepared:
        check_text(statement)
        if not _is_rows(parameters):
            return Prepared(statement, self._parameters(parameters))
        if parameters:
            return Prepared(statement, [self._parameters(row) for row in parameters], is_many=True)
        # No rows, or no parameters: the statement knows.
        if has_placeholder(statement):
            return Prepared(statement, [], is_many=True)
        return Prepared(statement, None)

    def _of_sqlalchemy(self, statement: Any, parameters: Any) -> Prepared:
        if self._compiler is None:
            check_text(statement)
            raise AssertionError
        if parameters is None or isinstance(parameters, Mapping):
            compiled = self._compiler.compile(statement, parameters)
            return Prepared(compiled.sql, self._parameters(compiled.parameters), shape=compiled.rows)
        if not _is_rows(parameters) or not all(isinstance(row, Mapping) for row in parameters):
            msg = (
                "parameters of a statement of SQLAlchemy's go by name: give a mapping, or a list of mappings for several "
                "rows; nothing was run"
            )
            raise DatabaseError(msg, "ProgrammingError")
        if not parameters:
            return Prepared("", [], is_many=True)
        compiled = self._compiler.compile(statement, list(parameters))
        # One row is compiled as one.
        given = compiled.parameters if len(parameters) > 1 else [compiled.parameters]
        return Prepared(compiled.sql, [self._parameters(row) for row in given], is_many=True)


def _is_of_sqlalchemy(statement: object) -> bool:
    # Whoever made one has loaded it.
    loaded = sys.modules.get("sqlalchemy")
    return loaded is not None and isinstance(statement, loaded.Executable)


def _is_rows(parameters: Any) -> bool:
    """True for several rows of parameters, and for an empty sequence; False for the parameters of one."""
    if not isinstance(parameters, Sequence) or isinstance(parameters, _SCALARS):
        return False
    first = parameters[0] if parameters else ()
    return isinstance(first, Mapping | Sequence) and not isinstance(first, _SCALARS)
