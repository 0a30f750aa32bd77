"""Which PRAGMA may go over a channel whose connections are everybody's: what only asks, and what is in the file.

A setting is accepted when it asks for what is so already: programs that write `PRAGMA foreign_keys=ON` after
connecting need not be changed.
"""

from __future__ import annotations

import re
from typing import Final

from penstock.errors import DatabaseError

#: They describe the schema or check it, and change nothing whatever their argument is.
_ASKS: Final = frozenset(
    {
        "collation_list",
        "compile_options",
        "data_version",
        "database_list",
        "foreign_key_check",
        "foreign_key_list",
        "freelist_count",
        "function_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "module_list",
        "page_count",
        "pragma_list",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
    }
)
#: Part of the file, written in a transaction like a row.
_IN_FILE: Final = frozenset({"user_version", "application_id"})
#: Of the connection: may be asked, and "set" to what they are.
_FIXED: Final = {
    "foreign_keys": frozenset({"on", "1", "true", "yes"}),
    "journal_mode": frozenset({"wal"}),
    "encoding": frozenset({"utf-8"}),
    "recursive_triggers": frozenset({"off", "0", "false", "no"}),
    "read_uncommitted": frozenset({"off", "0", "false", "no"}),
    "case_sensitive_like": frozenset({"off", "0", "false", "no"}),
    "synchronous": frozenset[str](),
    "busy_timeout": frozenset[str](),
    "cache_size": frozenset[str](),
    "page_size": frozenset[str](),
    "auto_vacuum": frozenset[str](),
    "schema_version": frozenset[str](),
    "defer_foreign_keys": frozenset[str](),
    "max_page_count": frozenset[str](),
    "temp_store": frozenset[str](),
}
_FORM: Final = re.compile(
    r"""\s*PRAGMA\s+(?:(?P<schema>\w+|"(?:[^"]|"")+")\s*\.\s*)?(?P<name>\w+)\s*
    (?:(?P<set>=)?\s*(?(set)|\()\s*(?P<value>[-+]?\w[\w.-]*|"(?:[^"]|"")*"|'(?:[^']|'')*'|`[^`]*`|\[[^\]]*\])\s*(?(set)|\)))?\s*;?\s*""",
    re.IGNORECASE | re.VERBOSE,
)


def writes_file(statement: str) -> bool:
    """True for a PRAGMA that is written like a row."""
    found = _FORM.fullmatch(statement)
    return found is not None and found["name"].lower() in _IN_FILE and found["value"] is not None


def check_pragma(statement: str) -> str:
    """The PRAGMA as it is to be run. Raises `DatabaseError` for one that would change a shared connection."""
    found = _FORM.fullmatch(statement)
    if found is None:
        msg = "this PRAGMA cannot be read: write PRAGMA name, PRAGMA name(value) or PRAGMA name = value, and nothing else; nothing was run"
        raise DatabaseError(msg, "NotSupportedError")
    name, value = found["name"].lower(), found["value"]
    if name in _ASKS or name in _IN_FILE:
        return statement
    if name in _FIXED and (value is None or _plain(value) in _FIXED[name]):
        # Only asked: the answer is the same.
        return f"PRAGMA {name}" if name != "case_sensitive_like" else "SELECT 0 WHERE 0"
    msg = (
        f"PRAGMA {name} does not cross the channel: its connections are shared by all workers and set up by the "
        "[database] section of the settings; nothing was run"
    )
    raise DatabaseError(msg, "NotSupportedError")


def _plain(value: str) -> str:
    return value.strip("\"'`[]").lower()
