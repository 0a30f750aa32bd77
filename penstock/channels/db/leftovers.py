"""Which statements leave something on a connection that a rollback does not take away.

For databases whose driver cannot tell; SQLite's can. A false alarm costs a new connection, a miss costs the
next message its defaults, so the doubtful ones (CALL, executable comments) are on the list. What a function
or a procedure sets from within is not in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: What may stand in front of a statement, comments taken out.
IN_FRONT: Final = r"[\s(]*+"
_TEMPORARY: Final = r"CREATE\s+(?:OR\s+REPLACE\s+)?(?:GLOBAL\s+|LOCAL\s+)?TEMP(?:ORARY)?"
_FIRST_WORDS: Final = re.compile(
    IN_FRONT
    + r"(?P<words>SET|RESET|USE|CALL|DO|LOCK|FLUSH|BACKUP|PREPARE|EXECUTE|DEALLOCATE|HANDLER|XA|DECLARE|LISTEN|LOAD|DISCARD"
    # MariaDB runs a block as it stands, and what it sets is the session's.
    r"|BEGIN\s+NOT|IF|CASE|LOOP|WHILE|REPEAT|FOR|GET(?:\s+(?:CURRENT|STACKED))?\s+DIAGNOSTICS)\b",
    re.IGNORECASE,
)
#: The rare mark without which a pattern is not looked for, how it begins, and the pattern, in small letters. One after the
#: other: an alternation of all of them would take seconds for a text of some megabytes.
_ANYWHERE: Final = tuple(
    (mark, begins, re.compile(pattern))
    for mark, begins, pattern in (
        (":=", ":=", r":="),
        ("/*!", "/*!", r"/\*!"),
        ("/*m!", "/*m!", r"/\*m!"),
        # Where comments nest, as on PostgreSQL, this one's end is not the first that is found.
        ("/*/*", "/*/*", r"/\*/\*"),
        # A name may be spelt in numbers behind it.
        ("u&", "u&", r"\bu&['\"]"),
        # Whoever updates that view, sets.
        ("pg_settings", "update", r'\bupdate\s+(?:only\s+)?(?:"?pg_catalog"?\s*\.\s*)?"?pg_settings\b'),
        ("@", "into", r"\binto\s+@"),
        ("temp", "into", r"\binto\s+(?:global\s+|local\s+)?temp(?:orary)?\b"),
        ("temp", "create", rf"\b{_TEMPORARY.lower()}\b"),
        ("pg_temp", "pg_temp", r"\bpg_temp(?:_\d+)?\b"),
        ("get_lock", "get_lock", r"\bget_lock\b"),
        ("set_config", "set_config", r"\bset_config\b"),
        ("setseed", "setseed", r"\bsetseed\b"),
        ("advisory_lock", "pg_", r"\bpg_(?:try_)?advisory_lock(?:_shared)?\b"),
    )
)
#: `LAST_INSERT_ID(n)` is not looked for in these, where it is the usual way to learn an id, and no more than each INSERT leaves.
_WRITES: Final = re.compile(IN_FRONT + r"(?:INSERT|REPLACE|UPDATE)\b", re.IGNORECASE)
_CHOSEN_ID: Final = re.compile(r"\bLAST_INSERT_ID(?=\s*\(\s*[^)\s])", re.IGNORECASE)
#: On PostgreSQL these end with their transaction; elsewhere SET LOCAL is the session's, too.
_LOCAL: Final = re.compile(IN_FRONT + r"SET\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b", re.IGNORECASE)
_LOCAL_CONFIG: Final = re.compile(
    r"\bset_config\s*\((?:\s|''|%s|%\(\w++\)s|[\w.:])*+,(?:\s|''|%s|%\(\w++\)s|[\w.:])*+,\s*true\s*\)",
    re.IGNORECASE,
)
_DROPPED: Final = re.compile(IN_FRONT + rf"{_TEMPORARY}\b(?=(?:.|\n)*\bON\s+COMMIT\s+DROP\b)", re.IGNORECASE)
#: Without one of these a text is read as it stands.
_MARKS: Final = re.compile(r"['\"`;$]|--|/\*|\#")
_OTHER_MARKS: Final = (
    r"|(?P<quoted>`[^`]*+`)|(?P<comment>--[^\n]*+|^\s*+\#(?![>-])[^\n]*+|/\*(?!M?!).*?\*/)"
    r"|(?<![\w$])\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$|(?P<odd>['\"`]|\\(?!N)|/\*(?!M?!))"
)
#: Where a statement may begin, or be interrupted.
_JOINTS: Final = (";", "--", "/*", "#")
#: Two ways to read quotes; the second when a text makes no sense in the first.
_READINGS: Final = tuple(
    re.compile(literals + _OTHER_MARKS, re.DOTALL | re.MULTILINE)
    for literals in (
        r"'(?:[^'\\]++|\\.|'')*+'|(?P<double>\"(?:[^\"\\]++|\\.|\"\")*+\")",
        r"\b[eE]'(?:[^'\\]++|\\.|'')*+'|'(?:[^']++|'')*+'|(?P<double>\"(?:[^\"]++|\"\")*+\")",
    )
)
_NAME: Final = re.compile(r".\w+.")


def left_by(statement: str) -> str | None:
    """The words that give a text away, or None for one whose statements a rollback undoes."""
    if is_one(statement) and left_by_part(statement) is None:
        # A million literals need not be told from the rest.
        return None
    return next((words for part in parts(statement) if (words := left_by_part(part)) is not None), None)


def left_in_postgresql(statement: str) -> str | None:
    """As `left_by`, but for what PostgreSQL ends with the transaction."""
    if is_one(statement) and left_by_part(statement) is None:
        return None
    return next(
        (words for part in parts(statement) if (words := left_by_part(lasting(part))) is not None), None
    )


def is_one(statement: str) -> bool:
    """True for a text that holds one statement and no comment; False for another, and for one with such a mark in quotes."""
    return not any(joint in statement for joint in _JOINTS)


def lasting(part: str) -> str:
    """What of one of `parts` PostgreSQL does not end with its transaction."""
    if _LOCAL.match(part):
        return ""
    lower = part.lower()
    if "temp" in lower:
        part = _DROPPED.sub("", part)
    return _LOCAL_CONFIG.sub("", part) if "set_config" in lower else part


def left_by_part(part: str) -> str | None:
    """As `left_by`, for one of `parts`."""
    first = _FIRST_WORDS.match(part)
    if first is not None:
        return " ".join(first["words"].upper().split())
    lower = part.lower()
    anywhere = min(_anywhere(lower), key=re.Match.start, default=None)
    if anywhere is None and "last_insert_id" in lower and not _WRITES.match(part):
        anywhere = _CHOSEN_ID.search(part)
    return None if anywhere is None else " ".join(anywhere[0].upper().split())


def _anywhere(lower: str) -> Iterator[re.Match[str]]:
    for mark, begins, pattern in _ANYWHERE:
        at = lower.find(begins) if mark in lower else -1
        while at >= 0:
            found = pattern.match(lower, at)
            if found is not None:
                yield found
                break
            at = lower.find(begins, at + 1)


def parts(statement: str) -> list[str]:
    """The statements of a text, without comments, and with what stands in quotes left out; none of them is empty."""
    if _MARKS.search(statement) is None:
        return [statement]
    bare = next((bare for reading in _READINGS if (bare := _bare(statement, reading)) is not None), statement)
    return [part for part in bare.split(";") if part and not part.isspace()]


class _OddError(Exception):
    """A quote or a comment that does not close."""


def _bare(statement: str, reading: re.Pattern[str]) -> str | None:
    """None for a text that makes no sense in this reading."""
    # By an exception, because going on behind the first of them could take a large text's length squared.
    try:
        return reading.sub(_replaced, statement)
    except _OddError:
        return None


def _replaced(found: re.Match[str]) -> str:
    if found["odd"]:
        raise _OddError
    if found["comment"]:
        return "/*/*" if found["comment"].rfind("/*") > 0 and found["comment"].startswith("/*") else " "
    name = found["double"] or found["quoted"]
    # A schema may be written in quotes, too.
    return name if name and _NAME.fullmatch(name) else "''"
