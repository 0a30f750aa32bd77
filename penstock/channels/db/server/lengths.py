"""How long a statement MySQL and MariaDB take: a longer one they answer by ending the connection, often without a word."""

from __future__ import annotations

from typing import Final

from pymysql import err
from pymysql.constants import CR

#: To be asked once on each connection; it cannot be set for one alone.
QUESTION: Final = "SELECT @@max_allowed_packet"


def check_length(statement: bytes, most_bytes: int | None) -> None:
    """Raises `DataError` for what the server would not take; None: nobody has asked it."""
    # Before it stands the byte that says what it is; the server refuses what fills its buffer, too.
    if most_bytes is not None and len(statement) + 1 >= most_bytes:
        msg = (
            f"the statement has {len(statement)} bytes with its parameters, and the server takes less than {most_bytes} "
            "(max_allowed_packet, a setting of its own); nothing was run. Write less at once, or raise it there"
        )
        raise err.DataError(CR.CR_NET_PACKET_TOO_LARGE, msg)
