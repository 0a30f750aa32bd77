"""Everything that tells how a service is, started before it and ended after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.config import Settings
from penstock.config.http import HttpSection
from penstock.errors import ConfigurationError
from penstock.health.database import DatabaseWatch
from penstock.health.file import HealthFile
from penstock.health.loop_watch import LoopWatch
from penstock.health.readiness import Readiness
from penstock.health.sources import Sources
from penstock.health.systemd import Systemd
from penstock.reactor.service import Reactor, Stop

if TYPE_CHECKING:
    from penstock.health.endpoint import Endpoint


@asynccontextmanager
async def kept_health(
    reactor: Reactor,
    stop: Stop,
    settings: Settings,
    *,
    application: str,
    queues: Sequence[str],
    ask_database: Callable[[], str | None],
    count_dropped: Callable[[], int],
) -> AsyncIterator[None]:
    """Inside the block the health file is kept, systemd is told and the endpoint answers, as far as they are wanted.

    Raises `ConfigurationError` when the endpoint is wanted and cannot be had.
    """
    section = settings.database
    has_database = any((section.url, section.session, section.engine))
    database = DatabaseWatch(ask_database) if has_database else None
    readiness = Readiness(reactor.why_not_ready, database, stop.requested, reactor.warnings)
    watch = LoopWatch(settings.service.blocked_seconds, dump_fd=_stderr())
    plural = "1 queue" if len(queues) == 1 else f"{len(queues)} queues"
    systemd = Systemd.from_environment(os.environ, readiness, when_ready=f"consuming {plural}")
    file = settings.service.health_file
    health_file = HealthFile(
        None if file is None else Path(file),
        application=application,
        queues=queues,
        why_not_ready=readiness.why_not,
    )
    endpoint = _endpoint(
        settings.http,
        Sources(
            asyncio.get_running_loop(),
            watch,
            readiness,
            database,
            reactor.figures,
            application,
            count_dropped,
        ),
    )
    async with AsyncExitStack() as ends:
        watch.start()
        ends.callback(watch.stop)
        if database is not None:
            database.start()
            ends.callback(database.stop)
        if endpoint is not None:
            endpoint.start()
            ends.push_async_callback(asyncio.to_thread, endpoint.stop)
        for task in [
            asyncio.create_task(health_file.keep(), name="penstock-health-file"),
            *([asyncio.create_task(systemd.keep(), name="penstock-systemd")] if systemd is not None else []),
        ]:
            ends.push_async_callback(_cancelled, task)
        yield


def _endpoint(section: HttpSection, sources: Sources) -> Endpoint | None:
    if section.port is None:
        return None
    try:
        from penstock.health.endpoint import Endpoint
    except ImportError as error:
        msg = (
            f"http.port is set and {error.name} is not installed; nothing is consumed; pip install 'penstock[http]', or "
            "leave http.port out"
        )
        raise ConfigurationError(msg) from error
    return Endpoint(section, sources)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _stderr() -> int | None:
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ is not None else None
    except (OSError, ValueError):
        return None
