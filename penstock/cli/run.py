"""`penstock run`: a reactor from the first signal handler to the last line of the log."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal, TypeAlias

import structlog

from penstock.app.application import App
from penstock.buses.address import open_bus
from penstock.cli import options
from penstock.cli.exits import Exit
from penstock.cli.loading import load_application
from penstock.cli.signals import stops
from penstock.cli.words import fail, secrets
from penstock.config import Settings
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.health.keeping import kept_health
from penstock.reactor.log import configure_logging
from penstock.reactor.service import Reactor, Stop
from penstock.reactor.slot_state import SlotFault

Loop: TypeAlias = Literal["auto", "asyncio", "uvloop"]
LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]

#: What is still there after the drain gets so long to notice that it is cancelled.
LAST_CANCEL_S: Final = 1.0

_log = structlog.get_logger("penstock.run")


def run_service(address: str, settings: Settings, *, only: Sequence[str], inline: bool, loop: Loop) -> Exit:
    """Serve the application until a signal asks for the stop; returns the exit code.

    Raises what `Reactor` and its start raise: `ConfigurationError`, `HandlerError`, `BusUnavailable`,
    `TopologyMismatch`.
    """
    # A worker would import our main script again, and with it the whole command line.
    options.hide_main_module()
    with contextlib.suppress(ValueError, OSError, AttributeError):  # a stderr that is closed
        faulthandler.enable()
    factory = loop_factory(loop)
    writer = configure_logging(settings.service, extra=secrets.processor)
    try:
        app = load_application(address)
        with running_loop(factory) as runner:
            serving = _serve(
                app, address, settings, only=only, inline=inline, count_dropped=lambda: writer.dropped
            )
            runner.run(serving)
            if runner.run(_some_go_on()):
                # Everything is closed and handed back; closing the loop would wait for them for ever.
                writer.close()
                os._exit(Exit.OK)
    except SlotFault as error:
        # After the log's last line, which would otherwise come behind it.
        writer.close()
        fail(f"the workers can never work, so nothing was consumed; a worker says:\n{error}")
        return Exit.WORKERS
    finally:
        writer.close()
    return Exit.OK


@contextlib.contextmanager
def running_loop(factory: LoopFactory | None) -> Iterator[asyncio.Runner]:
    """A runner whose end leaves no moment in which a stop request would kill the process."""
    runner = asyncio.Runner(loop_factory=factory)
    try:
        yield runner
    finally:
        stops.close(runner)


def loop_factory(loop: Loop) -> LoopFactory | None:
    """What makes the event loop; None is asyncio's own. Raises `ConfigurationError` when uvloop is not installed."""
    if loop == "asyncio":
        return None
    try:
        import uvloop
    except ImportError as error:
        if loop == "auto":
            return None
        msg = "--loop uvloop: it is not installed; pip install 'penstock[uvloop]', or leave --loop out"
        raise ConfigurationError(msg) from error
    return uvloop.new_event_loop


async def _some_go_on() -> bool:
    """True when a task ignores its cancellation: an async handler that swallows CancelledError."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    return bool(tasks) and bool((await asyncio.wait(tasks, timeout=LAST_CANCEL_S))[1])


async def _serve(
    app: App,
    address: str,
    settings: Settings,
    *,
    only: Sequence[str],
    inline: bool,
    count_dropped: Callable[[], int],
) -> None:
    stop = Stop()
    await _start_threads()
    reactor = Reactor(app, address, open_bus(settings.bus), settings, only=only, inline=inline)
    stops.forward(asyncio.get_running_loop(), stop.request, reactor.renew_workers)
    queues = [handler.queue.name for handler in app.select(only)]
    async with kept_health(
        reactor,
        stop,
        settings,
        application=address,
        queues=queues,
        ask_database=lambda: _ask(settings.database),
        count_dropped=count_dropped,
    ):
        await reactor.run(stop)


async def _start_threads() -> None:
    """The threads for what blocks, as many as asyncio would start one by one: none has to be started under a limit."""
    count = min(32, (os.cpu_count() or 1) + 4)
    executor = ThreadPoolExecutor(count, "penstock-blocking")
    all_started = threading.Barrier(count)
    waiting: list[asyncio.Future[int]] = []
    loop = asyncio.get_running_loop()
    loop.set_default_executor(executor)
    try:
        waiting.extend(loop.run_in_executor(None, all_started.wait) for _ in range(count))
    except RuntimeError as error:
        # Those that have started would wait for the others for ever, and the process for them.
        all_started.abort()
        executor.shutdown()
        msg = (
            f"the system lets this process start {len(waiting)} of {count} threads ({error}); nothing was consumed; "
            "raise the limit on processes (ulimit -u, TasksMax=, the container's pids limit)"
        )
        raise ConfigurationError(msg) from error
    finally:
        await asyncio.gather(*waiting, return_exceptions=True)


def _ask(section: DatabaseSection) -> str | None:
    """Why the database is away, in words; None when it answers."""
    # In the thread that asks: SQLAlchemy takes its time to import.
    from penstock.cli.check.database import look_at_database

    _, problems = look_at_database(section)
    return problems[0].words if problems else None
