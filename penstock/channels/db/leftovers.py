"""Which statements leave something on a connection that a rollback does not take away.

For databases whose driver cannot tell; SQLite's can. A false alarm costs a new connection, a miss costs the
next message its defaults, so the doubtful ones (CALL, executable comments) are on the list.
"""

from __future__ import annotations

import re
from typing import Final

#: What may stand in front of a statement.
COMMENTS: Final = r"(?:\s|\(|--[^\n]*\n|\#[^\n]*\n|/\*[^!](?:.|\n)*?\*/)*"
_FIRST_WORDS: Final = re.compile(
    COMMENTS
    + r"(?P<words>SET|USE|CALL|DO|LOCK|FLUSH|PREPARE|HANDLER|XA|DECLARE|LISTEN|LOAD|DISCARD|CREATE\s+(?:OR\s+REPLACE\s+)?(?:GLOBAL\s+|LOCAL\s+)?TEMP(?:ORARY)?)\b",
    re.IGNORECASE,
)
_ANYWHERE: Final = re.compile(
    r":=|/\*!|\bINTO\s+(?:@|TEMP(?:ORARY)?\b)|\b(?:GET_LOCK|set_config|pg_(?:try_)?advisory_lock)\b",
    re.IGNORECASE,
)


def left_by(statement: str) -> str | None:
    """The words that give a statement away, or None for one that a rollback undoes."""
    first = _FIRST_WORDS.match(statement)
    if first is not None:
        return " ".join(first["words"].upper().split())
    anywhere = _ANYWHERE.search(statement)
    return anywhere[0] if anywhere is not None else None
