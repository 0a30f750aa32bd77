"""What PyMySQL raised on the loop's side, as its own classes again, and the words for what cannot cross."""

from __future__ import annotations

import builtins
from typing import Final

from pymysql import err

from penstock.channels.db.calls import Failed
from penstock.channels.dbapi.refusals import Refusals
from penstock.channels.dbapi.server.session import ServerSession

_BUILTINS: Final = frozenset({"IndexError", "KeyError", "OverflowError", "ValueError"})
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


class Session(ServerSession):
    """As PyMySQL says it."""

    def driver_error(self, failed: Failed) -> Exception:
        """With the server's number and text as its arguments."""
        if failed.name == "TypeError":
            # What Python says when parameters do not fit their places, in the driver's class for it.
            return err.ProgrammingError(failed.text)
        if failed.name in _BUILTINS:
            found: type[Exception] = getattr(builtins, failed.name)
            return found(failed.text)
        kind = getattr(err, failed.name, err.DatabaseError)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = err.DatabaseError
        error = kind(*(failed.arguments or [failed.text]))
        if failed.sqlstate is not None:
            # Newer versions of the driver have it.
            error.sqlstate = failed.sqlstate  # type: ignore[attr-defined] # not in its stubs yet
        return error

    def operational(self, text: str) -> Exception:
        """Without a number, which only the server gives."""
        return err.OperationalError(text)

    def too_large(self, text: str) -> Exception:
        """The same."""
        return err.DataError(text)
