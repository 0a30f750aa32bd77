"""Statements that begin and end transactions, told from their text: the connection does what they say, none of them crosses.

A connection of the loop's is lent from begin to end, so both sides have to know where that is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

_BLANK: Final = r"(?:\s|--[^\n]*(?:\n|\Z)|/\*[^!](?:[^*]|\*(?!/))*\*/)"
_TAIL: Final = rf"(?:{_BLANK}|;)*"
_OPTION: Final = (
    r"(?:\s*,?\s*(?:ISOLATION\s+LEVEL\s+(?:READ\s+UNCOMMITTED|READ\s+COMMITTED|REPEATABLE\s+READ|SERIALIZABLE)"
    r"|READ\s+ONLY|READ\s+WRITE|NOT\s+DEFERRABLE|DEFERRABLE))"
)
_PATTERN: Final = re.compile(
    rf"""{_BLANK}*(?:
    (?:BEGIN(?:\s+(?:WORK|TRANSACTION))?|START\s+TRANSACTION)(?P<begin>{_OPTION}*)
    |(?P<commit>(?:COMMIT|END)(?:\s+(?:WORK|TRANSACTION))?)
    |(?P<rollback>(?:ROLLBACK|ABORT)(?:\s+(?:WORK|TRANSACTION))?)
    |SET\s+TRANSACTION(?P<next>{_OPTION}+)
    |SET\s+SESSION\s+(?:CHARACTERISTICS\s+AS\s+)?TRANSACTION(?P<all>{_OPTION}+)
    ){_TAIL}""",
    re.IGNORECASE | re.VERBOSE,
)
_FIRST_LETTERS: Final = frozenset("bBsScCeErRaA-/ \t\r\n")
#: Longer than any of them, but for comments.
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a transaction begins; None is what the database does when nobody says."""

    isolation: str | None = None
    is_read_only: bool | None = None
    is_deferrable: bool | None = None


class Verb(Enum):
    """What such a statement does; its value is the group above that holds its options."""

    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SET_NEXT = "next"
    """For the next transaction, or the one that is open."""
    SET_ALL = "all"
    """For all to come."""


@dataclass(frozen=True, slots=True)
class Control:
    """One such statement."""

    verb: Verb
    options: Beginning


def control_of(statement: str) -> Control | None:
    """What it does to transactions; None for any other statement."""
    if len(statement) > _LONGEST or statement[:1] not in _FIRST_LETTERS:
        return None
    found = _PATTERN.fullmatch(statement)
    return (
        next((Control(v, _options(found[v.value])) for v in Verb if found[v.value] is not None), None)
        if found
        else None
    )


def merged(first: Beginning, over: Beginning) -> Beginning:
    """What `over` says, and where it says nothing, what `first` says."""
    return replace(
        first,
        isolation=first.isolation if over.isolation is None else over.isolation,
        is_read_only=first.is_read_only if over.is_read_only is None else over.is_read_only,
        is_deferrable=first.is_deferrable if over.is_deferrable is None else over.is_deferrable,
    )


def _options(text: str) -> Beginning:
    words = " ".join(text.upper().replace(",", " ").split())
    level = re.search(
        r"ISOLATION LEVEL (READ UNCOMMITTED|READ COMMITTED|REPEATABLE READ|SERIALIZABLE)", words
    )
    return Beginning(
        level[1] if level else None,
        True if "READ ONLY" in words else False if "READ WRITE" in words else None,
        False if "NOT DEFERRABLE" in words else True if "DEFERRABLE" in words else None,
    )
