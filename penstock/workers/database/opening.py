"""Opening a connection to a server that may be away: full-jitter backoff, and a word for each failure."""

from __future__ import annotations

import time
from random import Random
from typing import Final

from sqlalchemy.pool import PoolProxiedConnection
from structlog.typing import FilteringBoundLogger

from penstock.app.backoff import Backoff
from penstock.errors import ConfigurationError
from penstock.workers.database.kind import DatabaseKind

_FIRST_WAIT_S: Final = 0.2
#: How long one message waits in its worker for a lost database. Then it goes back for a later retry, uncharged,
#: and the slot is free for handlers that need no database; well under a broker's consumer timeout (30 min).
REOPEN_WAIT_S: Final = 30.0


def open_patiently(
    kind: DatabaseKind,
    *,
    cap_s: float,
    log: FilteringBoundLogger,
    limit_s: float | None = None,
) -> PoolProxiedConnection | None:
    """Open the connection, however often it takes; None after `limit_s` seconds.

    Raises `ConfigurationError` when the driver does not understand what it is told.
    """
    backoff = Backoff(first_s=_FIRST_WAIT_S, cap_s=cap_s)
    random = Random()
    give_up_at = None if limit_s is None else time.monotonic() + limit_s
    attempt = 0
    while True:
        attempt += 1
        try:
            held = kind.connect()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - told apart below: what may pass, and what never will
            words = kind.words_of(error)
            if not kind.is_unreachable(error):
                msg = f"the database {kind.address} cannot be opened with these settings: {type(error).__name__}: {words}"
                raise ConfigurationError(msg) from None
            wait_s = backoff.delay_s(attempt, random)
            if give_up_at is not None and time.monotonic() + wait_s >= give_up_at:
                log.warning(
                    "database not reachable; the message comes again, uncharged",
                    database=str(kind.address),
                    error=words,
                    attempt=attempt,
                )
                return None
            log.warning(
                "database not reachable; trying again",
                database=str(kind.address), error=words, attempt=attempt, next_try_s=round(wait_s, 2),
            )  # fmt: skip
            time.sleep(wait_s)
        else:
            if attempt > 1:
                log.info("database reachable again", database=str(kind.address), attempt=attempt)
            return held
