"""What of the driver cannot cross the channel, and why."""

from __future__ import annotations

import sqlite3
from typing import Final

from penstock.channels.dbapi.refusals import Refusals

_CODE: Final = (
    "it is code of this process, which the loop's connection cannot call; do it in Python with the rows"
)
_SHARED: Final = "the loop's connections are shared by all workers, and it would change them for everybody"
_HANDLE: Final = "a handle into the library's memory cannot leave its process; read and write whole values"
_WHOLE: Final = "the whole database would cross; use the sqlite3 module on the file itself"


class RefusedError(sqlite3.NotSupportedError, AttributeError):
    """Raised for what cannot cross."""


_NAMES: Final = {
    **dict.fromkeys(
        (
            "create_function",
            "create_aggregate",
            "create_window_function",
            "create_collation",
            "set_authorizer",
            "set_progress_handler",
            "set_trace_callback",
        ),
        _CODE,
    ),
    **dict.fromkeys(("enable_load_extension", "load_extension", "setlimit", "setconfig"), _SHARED),
    **dict.fromkeys(
        ("getlimit", "getconfig"), "which of the loop's connections runs a statement is not known before"
    ),
    **dict.fromkeys(("backup", "serialize", "deserialize"), _WHOLE),
    "blobopen": _HANDLE,
    "interrupt": "a worker waits for each answer; a handler's timeout ends what runs",
}
_MANNERS: Final = {
    "a statement by calling the connection": "a statement is compiled where it runs; execute it"
}
REFUSALS: Final = Refusals(RefusedError, _NAMES, _MANNERS)
