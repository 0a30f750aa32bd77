"""What of the driver cannot cross the channel, and why."""

from __future__ import annotations

from typing import Final

from pymysql import err

from penstock.channels.dbapi.refusals import Refusals

_QUOTED: Final = "how a text is quoted depends on the sql_mode of the connection that runs it, which is the loop's; pass parameters"
_SHARED: Final = "the loop's connections are shared by all workers, and it would change them for everybody"
_UNKNOWN: Final = "which of the loop's connections runs a statement is not known before"
_PROTOCOL: Final = "it is a step of the protocol between driver and server; use cursors"
_ASK: Final = "ask for it in the same transaction, "


class RefusedError(err.NotSupportedError, AttributeError):
    """Raised for what cannot cross."""


_NAMES: Final = {
    **dict.fromkeys(("escape", "escape_string", "literal", "mogrify"), _QUOTED),
    **dict.fromkeys(("select_db", "set_charset", "set_character_set"), _SHARED),
    **dict.fromkeys(("thread_id", "get_host_info", "get_proto_info", "server_status"), _UNKNOWN),
    **dict.fromkeys(
        ("query", "next_result", "store_result", "write_packet", "affected_rows", "insert_id"), _PROTOCOL
    ),
    "kill": "a worker waits for each answer; a handler's timeout ends what runs",
    "connect": "a connection over the channel needs no opening: its first statement goes when it is run",
    "show_warnings": f"{_ASK}with SHOW WARNINGS",
    "warning_count": f"{_ASK}with SELECT @@warning_count",
    "get_server_info": "ask for it with SELECT VERSION()",
}
_MANNERS: Final = {
    "scroll backwards": "rows that were read are not kept; keep those that you want to see again",
}
REFUSALS: Final = Refusals(RefusedError, _NAMES, _MANNERS)
