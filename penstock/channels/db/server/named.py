"""`:name` in a statement of `ctx.db`, written as the servers' drivers want it: `%(name)s`."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Final

from penstock.channels.db.server.quoting import TEXT
from penstock.errors import DatabaseError

_TOKENS: Final = {
    backend: re.compile(
        rf"(?P<text>{text})|(?P<escaped>\\:)|::|:=|(?<!\w):(?P<name>\w++)(?!:(?!:))|%", re.DOTALL
    )
    for backend, text in TEXT.items()
}
_LONGEST_CACHED: Final = 4096


def compiled(statement: str, names_given: Collection[str], backend: str) -> tuple[str, bool]:
    """The statement in the driver's paramstyle, and whether it takes parameters; `backend` is mysql or postgresql.

    Raises `DatabaseError` when a name has no value. Without names it is run without parameters, so % is not special.
    """
    text, names = (_cached if len(statement) <= _LONGEST_CACHED else _find)(statement, backend)
    if not names:
        return text, False
    missing = names.difference(names_given)
    if missing:
        words = ", ".join(f":{name}" for name in sorted(missing))
        msg = f"no value is given for {words}; nothing was run"
        raise DatabaseError(msg, "ProgrammingError")
    return text, True


def _find(statement: str, backend: str) -> tuple[str, frozenset[str]]:
    if ":" not in statement:
        return statement, frozenset()
    names: set[str] = set()

    def plain(found: re.Match[str]) -> str:
        if found["name"]:
            names.add(found["name"])
        return ":" if found["escaped"] else found[0]

    def marked(found: re.Match[str]) -> str:
        return f"%({found['name']})s" if found["name"] else plain(found).replace("%", "%%")

    text = _TOKENS[backend].sub(plain, statement)
    return (_TOKENS[backend].sub(marked, statement) if names else text), frozenset(names)


_cached = lru_cache(maxsize=1024)(_find)
