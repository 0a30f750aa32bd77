"""What kind of statement a text is, by its first word, as Python's own sqlite3 looks at it."""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final

_FIRST_WORDS: Final = re.compile(
    r"(?:\s|;|--[^\n]*(?:\n|$)|/\*.*?\*/)*(?P<first>[A-Za-z]+)?(?:\s+(?P<second>[A-Za-z]+))?(?:\s+(?P<third>[A-Za-z]+))?",
    re.DOTALL,
)
_READS: Final = frozenset({"SELECT", "WITH", "VALUES", "EXPLAIN", "PRAGMA"})
_CHANGES: Final = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})


class Kind(Enum):
    """Where a statement runs and what it does to a transaction."""

    READS = auto()
    """Very likely; a reader refuses it when not."""
    CHANGES = auto()
    """Rows: the first one begins a transaction of a PEP 249 connection."""
    BEGINS = auto()
    COMMITS = auto()
    ROLLS_BACK = auto()
    SAVES = auto()
    """SAVEPOINT and what belongs to it: part of a transaction."""
    OTHER = auto()
    """Schema changes, VACUUM."""


@lru_cache(maxsize=1024)
def kind_of(sql: str) -> Kind:
    """The statement's kind, by its first words; comments are passed over."""
    found = _FIRST_WORDS.match(sql)
    first, second, third = (
        (word or "").upper() for word in (found.group("first", "second", "third") if found else ("", "", ""))
    )
    if first in _READS:
        return Kind.READS
    if first in _CHANGES:
        return Kind.CHANGES
    if first == "ROLLBACK":
        return Kind.SAVES if "TO" in (second, third) else Kind.ROLLS_BACK
    return {
        "BEGIN": Kind.BEGINS,
        "COMMIT": Kind.COMMITS,
        "END": Kind.COMMITS,
        "SAVEPOINT": Kind.SAVES,
        "RELEASE": Kind.SAVES,
    }.get(first, Kind.OTHER)


@lru_cache(maxsize=1024)
def vacuums(sql: str) -> bool:
    """True for a VACUUM in place; INTO makes a copy somewhere."""
    found = _FIRST_WORDS.match(sql)
    words = [(word or "").upper() for word in found.groups()] if found else [""]
    return words[0] == "VACUUM" and "INTO" not in words


@lru_cache(maxsize=1024)
def inserts(sql: str) -> bool:
    """True when the statement may say which row it inserted."""
    found = _FIRST_WORDS.match(sql)
    return found is not None and (found["first"] or "").upper() in ("INSERT", "REPLACE", "WITH")


@lru_cache(maxsize=1024)
def returns(sql: str) -> bool:
    """True when a change may give rows; the word in a text is a false alarm."""
    return "RETURNING" in sql.upper()
