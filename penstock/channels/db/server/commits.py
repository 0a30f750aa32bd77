"""Which texts PostgreSQL takes for a commit: after an error it answers such a one with a rollback, and no word of it."""

from __future__ import annotations

import re
from typing import Final

from penstock.channels.db.server.quoting import COMMENT

_COMMITS: Final = re.compile(
    rf"(?:[\s;]|--[^\n]*+|{COMMENT})*+(?:COMMIT|END|PREPARE\s+TRANSACTION)\b", re.IGNORECASE
)


def commits(statement: str) -> bool:
    """True when a commit is the first thing in it."""
    return _COMMITS.match(statement) is not None
