"""What AMQP libraries log of a lost connection, with a traceback and several times; our own lines say it once, in words."""

from __future__ import annotations

import logging
from typing import Final

#: Of the reader and of the broker's goodbye; `connection to the broker lost` has the same reason.
_OF_A_LOSS: Final = ("Cancelling cause reader exited abnormally", "Unexpected connection close from remote")
_LIBRARIES: Final = frozenset({"aiormq", "aio_pika", "pamqp"})


def is_told_in_words(record: logging.LogRecord) -> bool:
    """True for what aiormq says whenever a connection is lost."""
    return _library(record.name) in _LIBRARIES and str(record.msg).startswith(_OF_A_LOSS)


def left_by_a_connection(record: logging.LogRecord) -> BaseException | None:
    """The exception that ended a task of aiormq's together with its connection, when asyncio says that nobody asked."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name != "asyncio" or error is None or "never retrieved" not in str(record.msg):
        return None
    if _library(type(error).__module__) in _LIBRARIES:
        return error
    # A socket's own error, in a task of theirs.
    is_theirs = any(f"/{library}/" in record.getMessage() for library in _LIBRARIES)
    return error if is_theirs and isinstance(error, OSError | EOFError) else None


def _library(name: str) -> str:
    return name.partition(".")[0]
