"""Which statements do not go over the channel to a server, and which leave something on the connection behind.

Every transaction has another connection, so what is set on one is gone with the next, or somebody else finds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from penstock.channels.db.leftovers import IN_FRONT, is_one, lasting, left_by_part, parts
from penstock.errors import DatabaseError

_FROM_CLIENT: Final = "it reads a file, or a stream, of this process, which the channel does not carry: insert the rows with executemany"
_REFUSED: Final = (
    (re.compile(rf"{IN_FRONT}LOAD\s+(?:DATA|XML)\b(?:[^'\"]|\n)*?\bLOCAL\b", re.IGNORECASE), _FROM_CLIENT),
    (re.compile(rf"{IN_FRONT}COPY\b(?:.|\n)*\bFROM\s+STDIN\b", re.IGNORECASE), _FROM_CLIENT),
    (
        re.compile(rf"{IN_FRONT}COPY\b(?:.|\n)*\bTO\s+STDOUT\b", re.IGNORECASE),
        "it writes a stream, which the channel does not carry: select the rows",
    ),
    (
        re.compile(rf"{IN_FRONT}(?:UN)?LISTEN\b", re.IGNORECASE),
        "notifications come to a connection, and the connections are shared by all workers",
    ),
    (
        re.compile(rf"{IN_FRONT}DECLARE\b(?:.|\n)*?\bWITH\s+HOLD\b", re.IGNORECASE),
        "the cursor would outlive its transaction, whose connection goes to somebody else",
    ),
)
#: What is there for the statements behind it; a transaction has such.
_FOR_THE_NEXT: Final = re.compile(
    IN_FRONT
    + r"(?:SET\s+(?!GLOBAL\b|PERSIST\b|PERSIST_ONLY\b|@@GLOBAL|PASSWORD\b|STATEMENT\b)|USE\b|LOCK\b|PREPARE\b|DECLARE\b"
    r"|SAVEPOINT\b|BEGIN\b|START\s+TRANSACTION\b|XA\b|CREATE\s+(?:OR\s+REPLACE\s+)?(?:GLOBAL\s+|LOCAL\s+)?TEMP(?:ORARY)?\b)",
    re.IGNORECASE,
)
#: What is in its body is run later, by somebody else.
_HAS_BODY: Final = re.compile(
    rf"{IN_FRONT}CREATE\b(?:.|\n)*?\b(?:FUNCTION|PROCEDURE|TRIGGER|EVENT|PACKAGE)\b(?:.|\n)*?\bBEGIN\b",
    re.IGNORECASE,
)
_SET_TRANSACTION: Final = re.compile(rf"{IN_FRONT}SET\s+TRANSACTION\b", re.IGNORECASE)
_LONGEST_CACHED: Final = 4096


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is known of a statement from its text."""

    refusal: str | None
    """Why it never crosses."""
    is_for_the_next: bool
    """It has a meaning inside a transaction only."""
    leaves: bool
    """The connection is not for anybody else after it."""


def check(statement: str, backend: str, *, in_transaction: bool) -> Ruling:
    """Raises `DatabaseError` for a statement that does not cross, or not there; `backend` is mysql or postgresql."""
    found = (_cached if len(statement) <= _LONGEST_CACHED else _judge)(statement, backend)
    if found.refusal is not None:
        msg = f"the statement does not cross the database channel: {found.refusal}; nothing was run"
        raise DatabaseError(msg, "NotSupportedError")
    if found.is_for_the_next and not in_transaction:
        msg = (
            "the statement is for those behind it, and outside a transaction each runs on another connection: run it "
            "inside the transaction that needs it; nothing was run"
        )
        raise DatabaseError(msg, "NotSupportedError")
    return found


def _judge(statement: str, backend: str) -> Ruling:
    if is_one(statement) and (ruling := _judge_parts([statement], backend)) == _HARMLESS:
        # A million literals need not be told from the rest.
        return ruling
    return _judge_parts(parts(statement), backend)


def _judge_parts(found: list[str], backend: str) -> Ruling:
    lasts = lasting if backend == "postgresql" else _lasting_on_mysql
    leaves = any(left_by_part(lasts(part)) is not None for part in found)
    if found and _HAS_BODY.match(found[0]):
        del found[1:]
    refusal = next((why for part in found for pattern, why in _REFUSED if pattern.match(part)), None)
    return Ruling(refusal, any(map(_FOR_THE_NEXT.match, found)), leaves)


def _lasting_on_mysql(part: str) -> str:
    # It is for this transaction, which has not begun on the server before its first statement.
    return "" if _SET_TRANSACTION.match(part) else part


_HARMLESS: Final = Ruling(None, is_for_the_next=False, leaves=False)
_cached = lru_cache(maxsize=1024)(_judge)
