"""What may go over the database channel and who runs it, told from a statement's text alone.

Only statements that begin with a known verb pass, so that a comment, a semicolon or a byte order mark in front
of a forbidden one gains nothing; SQLite's authorizer (`sqlite/guarding.py`) stands behind this for what hides inside.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from penstock.errors import DatabaseError

#: Run on a reader; SQLite itself refuses them there (SQLITE_READONLY) should one of them write after all.
READS: Final = frozenset({"SELECT", "VALUES", "EXPLAIN"})
#: Written by many callers at once, in one transaction.
GROUPED: Final = frozenset({"INSERT", "REPLACE", "UPDATE", "DELETE"}) | READS
#: They change the schema, so each has a transaction to itself.
ALONE: Final = frozenset({"CREATE", "DROP", "ALTER", "ANALYZE", "REINDEX"})

_TRANSACTIONS: Final = (
    "the database channel begins and ends transactions itself, one a call; "
    "for several statements write: with ctx.db.transaction() as tx"
)
_ONE_FILE: Final = "the database channel works on the one file in database.url"
_WHY_REFUSED: Final = {
    **dict.fromkeys(("BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE"), _TRANSACTIONS),
    "PRAGMA": "it would change the connection of all workers; settings are in [database]",
    "ATTACH": _ONE_FILE,
    "DETACH": _ONE_FILE,
    "VACUUM": "it rewrites the file while every worker waits; run it with the service stopped",
}
REFUSED_VERBS: Final = frozenset(_WHY_REFUSED)

# Possessive, so that a long run of blanks or comments costs its length and no more.
_COMMENT: Final = r"--[^\n]*+|/\*(?:[^*]|\*(?!/))*+(?:\*/|\Z)"
_BLANK: Final = re.compile(rf"(?:[\s;\ufeff]|{_COMMENT})*+")
_WORD: Final = re.compile(r"[A-Za-z_]\w*+")
_TOKEN: Final = re.compile(
    rf"(?P<quoted>'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|`[^`]*+`|\[[^\]]*+\]|{_COMMENT})"
    r"|(?P<bracket>[()])|(?P<word>[^\W\d][\w$]*+)",
)
_PLACEHOLDER: Final = re.compile(
    rf"'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|`[^`]*+`|{_COMMENT}|(?P<place>\?|(?<![:\w]):[A-Za-z_]|[@$][A-Za-z_])"
)
_LONGEST_CACHED: Final = 4096
_SHOWN: Final = 160


def verb_of(statement: str) -> str:
    """The word that says what the statement does, in capitals; of `WITH … INSERT` it is INSERT; "" when empty."""
    # Statements that carry their values in their text are each seen once: no cache for them.
    return _cached_verb(statement) if len(statement) <= _LONGEST_CACHED else _find_verb(statement)


def may_write(statement: str) -> bool:
    """True unless the statement only reads."""
    return verb_of(statement) not in READS


def is_grouped(statement: str) -> bool:
    """True when the statement may share a transaction with other callers' statements."""
    return verb_of(statement) in GROUPED


def check_text(statement: object) -> None:
    """Raises `DatabaseError` in words for what is no text of SQL."""
    if not isinstance(statement, str):
        msg = (
            f"a statement of type {type(statement).__qualname__} is refused: ctx.db takes SQL as str, or a statement of "
            "SQLAlchemy's such as select(…), insert(…), text(…); nothing was run"
        )
        raise DatabaseError(msg, "ProgrammingError")
    if not statement.isascii():
        try:
            statement.encode()
        except UnicodeEncodeError as error:
            msg = f"a statement is refused: character {error.start} is a lone surrogate, which is no text; nothing was run"
            raise DatabaseError(msg, "ProgrammingError") from error


def has_placeholder(statement: str) -> bool:
    """True when the statement takes parameters."""
    return any(found["place"] for found in _PLACEHOLDER.finditer(statement))


def check_allowed(statement: str) -> None:
    """Raises `DatabaseError` in words for what may not go over the channel, whatever stands in front of it."""
    verb = verb_of(statement)
    if verb in GROUPED or verb in ALONE:
        return
    msg = f"{shown(statement)} is refused: {why_refused(verb)}; nothing was run"
    raise DatabaseError(msg, "ProgrammingError")


def why_refused(verb: str) -> str:
    """Why no statement with this verb goes over the channel, in words."""
    if not verb:
        return "it holds no statement"
    return _WHY_REFUSED.get(verb, f"no statement of SQLite begins with {verb}")


def shown(statement: str) -> str:
    """The statement's beginning, on one line, for an error's words; parameters never appear in them."""
    line = " ".join(statement[: _SHOWN * 2].split())
    return (
        f"{line[:_SHOWN]}…"
        if len(line) > _SHOWN or len(statement) > _SHOWN * 2
        else line or "an empty statement"
    )


def statements_of(script: str) -> Iterator[str]:
    """The statements of a script, as the library itself tells where each ends."""
    statement = ""
    for piece in script.split(";"):
        statement += piece
        if sqlite3.complete_statement(f"{statement};"):
            if statement.strip():
                yield f"{statement};"
            statement = ""
        else:
            statement += ";"
    if statement.rstrip(";").strip():
        yield statement.removesuffix(";")


def _find_verb(statement: str) -> str:
    start = _BLANK.match(statement)
    found = _WORD.match(statement, start.end() if start else 0)
    if found is None:
        rest = statement[start.end() if start else 0 :]
        return rest[:1]
    verb = found[0].upper()
    return _verb_after_with(statement, found.end()) if verb == "WITH" else verb


def _verb_after_with(statement: str, position: int) -> str:
    depth = 0
    for token in _TOKEN.finditer(statement, position):
        if token["bracket"]:
            depth += 1 if token[0] == "(" else -1
        elif token["word"] and not depth and (word := token[0].upper()) in GROUPED:
            return word
    return "WITH"


_cached_verb = lru_cache(maxsize=1024)(_find_verb)
