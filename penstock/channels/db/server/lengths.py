"""How long a statement MySQL and MariaDB take: a longer one they answer by ending the connection, often without a word."""

from __future__ import annotations

from typing import Final

#: To be asked once on each connection; it cannot be set for one alone.
QUESTION: Final = "SELECT @@max_allowed_packet"


#: What clients say of a packet that they do not send (CR_NET_PACKET_TOO_LARGE).
_TOO_LARGE: Final = 2020


def check_length(statement: bytes, most_bytes: int | None, error: type[Exception]) -> None:
    """Raises `error`, the driver's DataError, for what the server would not take; None: nobody has asked it."""
    # Before it stands the byte that says what it is; the server refuses what fills its buffer, too.
    if most_bytes is not None and len(statement) + 1 >= most_bytes:
        msg = (
            f"the statement has {len(statement)} bytes with its parameters, and the server takes less than {most_bytes} "
            "(max_allowed_packet, a setting of its own); nothing was run. Write less at once, or raise it there"
        )
        raise error(_TOO_LARGE, msg)
