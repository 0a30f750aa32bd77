"""What the database channel's calls carry, typed: the stub writes them, the service reads them."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

SERVICE: Final = "db"

#: What a caller wants of a statement: how many rows it changed, all rows, or the first.
Want: TypeAlias = Literal["execute", "fetch_all", "fetch_one"]


class Query(Struct, frozen=True, array_like=True):
    """One statement; `transaction` is the number that `begin` gave, None for one of its own."""

    statement: str
    # dict[str, Stored] | list[Stored] | None, which msgspec need not check: the stub made them.
    parameters: Any = None
    transaction: int | None = None
