"""What a result's columns are, as psycopg's row factories and `description` ask for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import psycopg
from psycopg.pq import ExecStatus


class Column(NamedTuple):
    """As `psycopg.Column`; `type_code` is the type's OID."""

    name: str
    type_code: int
    display_size: int | None = None
    internal_size: int | None = None
    precision: int | None = None
    scale: int | None = None
    null_ok: bool | None = None

    @property
    def type_display(self) -> str:
        """The type's name, `[]` behind it for an array of it."""
        found = psycopg.adapters.types.get(self.type_code)
        if found is None:
            return str(self.type_code)
        return f"{found.name}[]" if found.array_oid == self.type_code else found.name


class Result:
    """As much of `pgresult` as `dict_row`, `namedtuple_row` and the others look at."""

    status = ExecStatus.TUPLES_OK

    def __init__(self, names: list[str]) -> None:
        self._names = names

    @property
    def nfields(self) -> int:
        """Columns."""
        return len(self._names)

    def fname(self, index: int) -> bytes:
        """A column's name."""
        return self._names[index].encode()


def column(name: str, rest: list[Any]) -> Column:
    """Out of what crossed."""
    return Column(name, *rest)
