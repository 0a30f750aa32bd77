"""Opening a connection to a server that may be away: full-jitter backoff, and a word for each failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from threading import Event
from typing import Final, TypeAlias

from sqlalchemy.pool import PoolProxiedConnection
from structlog.typing import FilteringBoundLogger

from penstock.app.backoff import Backoff
from penstock.errors import ConfigurationError
from penstock.workers.database.kind import DatabaseKind

StopSignal: TypeAlias = Callable[[], bool] | Event | None

_FIRST_WAIT_S: Final = 0.2
#: How often a stop signal that is not an Event is asked.
_ASK_EACH_S: Final = 0.05


def open_patiently(
    kind: DatabaseKind,
    *,
    cap_s: float,
    should_stop: StopSignal,
    log: FilteringBoundLogger,
    limit_s: float | None = None,
) -> PoolProxiedConnection | None:
    """Open the connection, however often it takes; None when asked to stop, or after `limit_s` seconds.

    Raises `ConfigurationError` when the driver does not understand what it is told.
    """
    backoff = Backoff(first_s=_FIRST_WAIT_S, cap_s=cap_s)
    random = Random()
    give_up_at = None if limit_s is None else time.monotonic() + limit_s
    attempt = 0
    while not _stopped(should_stop):
        attempt += 1
        try:
            held = kind.connect()
        except Exception as error:  # noqa: BLE001 - told apart below: what may pass, and what never will
            words = kind.words_of(error)
            if not kind.is_unreachable(error):
                msg = f"the database {kind.address} cannot be opened with these settings: {type(error).__name__}: {words}"
                raise ConfigurationError(msg) from None
            wait_s = backoff.delay_s(attempt, random)
            if give_up_at is not None and time.monotonic() + wait_s >= give_up_at:
                log.warning(
                    "database not reachable; given up for this message",
                    database=str(kind.address),
                    error=words,
                    attempt=attempt,
                )
                return None
            log.warning(
                "database not reachable; trying again",
                database=str(kind.address), error=words, attempt=attempt, next_try_s=round(wait_s, 2),
            )  # fmt: skip
            _wait(wait_s, should_stop)
        else:
            if attempt > 1:
                log.info("database reachable again", database=str(kind.address), attempt=attempt)
            return held
    return None


def _stopped(should_stop: StopSignal) -> bool:
    if should_stop is None:
        return False
    return should_stop.is_set() if isinstance(should_stop, Event) else should_stop()


def _wait(seconds: float, should_stop: StopSignal) -> None:
    if isinstance(should_stop, Event):
        should_stop.wait(seconds)
        return
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not _stopped(should_stop):
        time.sleep(min(left, _ASK_EACH_S) if should_stop is not None else left)
