"""What of the driver cannot cross the channel, and why."""

from __future__ import annotations

from typing import Final

import psycopg

from penstock.channels.dbapi.refusals import Refusals

_HANDLE: Final = "it is a handle to a connection of this process, and the connections are the loop's"
_UNASKED: Final = (
    "what the server says unasked goes to the loop's connections, which are shared by all workers"
)
_COPY: Final = "COPY is a stream of its own between driver and server; use executemany, or psycopg itself"
_PREPARED: Final = "a prepared transaction outlives the connection that the loop lends for it"
_MAPS: Final = "values are made into their types on the loop's side; convert them in the handler"


class RefusedError(psycopg.NotSupportedError, AttributeError):
    """Raised for what cannot cross."""


_NAMES: Final = {
    **dict.fromkeys(("pgconn", "fileno", "wait"), _HANDLE),
    **dict.fromkeys(
        (
            "add_notice_handler",
            "remove_notice_handler",
            "add_notify_handler",
            "remove_notify_handler",
            "notifies",
        ),
        _UNASKED,
    ),
    **dict.fromkeys(
        ("tpc_begin", "tpc_prepare", "tpc_commit", "tpc_rollback", "tpc_recover", "xid"), _PREPARED
    ),
    **dict.fromkeys(
        ("cancel", "cancel_safe"), "a worker waits for each answer; a handler's timeout ends what runs"
    ),
    "adapters": _MAPS,
    "copy": _COPY,
    "pipeline": "a statement crosses with its answer; executemany crosses once",
}
_MANNERS: Final = {
    "executemany(returning=True)": "it would bring a result a row; insert several rows with one INSERT … RETURNING",
    "binary": "which format a value has between driver and server is the loop's business",
    "scroll backwards": "rows that were read are not kept; keep those that you want to see again",
}
REFUSALS: Final = Refusals(RefusedError, _NAMES, _MANNERS)
