"""How long a statement MySQL and MariaDB take: a longer one they answer by ending the connection, often without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: To be asked once on each connection; it cannot be set for one alone.
QUESTION: Final = "SELECT @@max_allowed_packet"
#: What clients say of a packet that they do not send (CR_NET_PACKET_TOO_LARGE).
TOO_LARGE: Final = 2020
#: What the server says, when it says something (ER_NET_PACKET_TOO_LARGE).
FOUND_TOO_LARGE: Final = 1153
#: Characters before which drivers write one more.
_ESCAPED: Final = (b"\\", b"'", b'"', b"\0", b"\n", b"\r", b"\x1a")


def check_length(statement: bytes, most_bytes: int | None, error: type[Exception]) -> None:
    """Raises `error`, the driver's DataError, for what the server would not take; None: nobody has asked it."""
    if (words := too_long(len(statement), most_bytes)) is not None:
        raise error(TOO_LARGE, words)


def too_long(length: int, most_bytes: int | None) -> str | None:
    """In words, why the server would not take so many bytes."""
    # Before it stands the byte that says what it is; the server refuses what fills its buffer, too.
    if most_bytes is None or length + 1 < most_bytes:
        return None
    return (
        f"the statement has {length} bytes with its parameters, and the server takes less than {most_bytes} "
        "(max_allowed_packet, a setting of its own); nothing was run. Write less at once, or raise it there"
    )


def length_of(statement: str, parameters: Any) -> int:
    """How many bytes a statement has with its parameters in it, for one that was sent: its longest row."""
    rows = parameters if isinstance(parameters, list) else [parameters]
    return len(statement.encode(errors="replace")) + max(map(_length_of_row, rows), default=0)


def _length_of_row(row: Any) -> int:
    return sum(_length_of_value(value) for value in (row.values() if isinstance(row, Mapping) else row or ()))


def _length_of_value(value: Any) -> int:
    text = value.encode(errors="replace") if isinstance(value, str) else value
    if not isinstance(text, bytes | bytearray):
        return len(str(value))
    return len(text) + sum(map(text.count, _ESCAPED))
