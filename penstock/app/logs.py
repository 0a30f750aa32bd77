"""What the log is on the loop and in workers: which libraries are quiet, which levels there are, what text may be in it."""

from __future__ import annotations

import logging
import re
from typing import Final

#: They tell at INFO what is ordinary here; a fault of theirs is a warning. Our pool speaks as SQLAlchemy's would.
_TALKATIVE: Final = (
    "aio_pika",
    "aiormq",
    "aiosqlite",
    "asyncio",
    "sqlalchemy",
    "uvicorn",
    "penstock.workers.database.pool",
)
#: What moves a terminal's cursor or talks to the terminal, in seven bits and in eight; a tab and a newline do not.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def quiet_libraries() -> None:
    """Let the libraries that Penstock stands on speak from WARNING on, whatever the service's own level is."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def standard_level(number: int) -> int:
    """The standard library's level at or below a number, which may lie between two; DEBUG below all of them."""
    return min(logging.CRITICAL, max(logging.DEBUG, number // 10 * 10))


def escape_controls(text: str) -> str:
    """The text with its control characters written out in hexadecimal; tabs and newlines stay."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
