"""What of a statement is text to a server, and not SQL: in quotes, in comments, between dollars."""

from __future__ import annotations

from typing import Final

#: Patterns for `re.DOTALL`. MySQL's backslash escapes a quote, PostgreSQL's does not; MySQL's -- wants a blank behind it.
TEXT: Final = {
    "mysql": r"'(?:[^'\\]|\\.|'')*+'|\"(?:[^\"\\]|\\.|\"\")*+\"|`[^`]*+`|--(?=\s|\Z)[^\n]*+|\#[^\n]*+|/\*.*?\*/",
    "postgresql": (
        r"[eE]'(?:[^'\\]|\\.|'')*+'|'(?:[^']|'')*+'|\"(?:[^\"]|\"\")*+\"|--[^\n]*+|/\*.*?\*/"
        r"|\$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$"
    ),
}
