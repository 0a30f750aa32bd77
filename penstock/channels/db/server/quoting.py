"""What of a statement is text to a server, and not SQL: in quotes, in comments, between dollars."""

from __future__ import annotations

from typing import Final

_NESTED: Final = 8


def _comment() -> str:
    """PostgreSQL's comments hold comments; an expression has to know how many deep."""
    pattern = ""
    for _ in range(_NESTED):
        pattern = rf"/\*(?:[^*/]++|\*(?!/)|/(?!\*){pattern and '|' + pattern})*+\*/"
    return pattern


#: A comment of PostgreSQL's.
COMMENT: Final = _comment()
#: Patterns for `re.DOTALL`. MySQL's backslash escapes a quote, PostgreSQL's does not; MySQL's -- wants a blank behind it.
TEXT: Final = {
    "mysql": r"'(?:[^'\\]|\\.|'')*+'|\"(?:[^\"\\]|\\.|\"\")*+\"|`[^`]*+`|--(?=\s|\Z)[^\n]*+|\#[^\n]*+|/\*.*?\*/",
    "postgresql": (
        r"[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|--[^\n]*+|"
        + COMMENT
        + r"|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$"
    ),
}
