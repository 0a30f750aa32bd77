"""The demo from its first message to its last.

```
 files ─▶ publish ─▶ files.found ─▶ index, in processes ─▶ files.indexed ─▶ count, on the loop
                          └─▶ files.found.dead: three broken messages
```
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from penstock.buses.address import open_bus
from penstock.buses.connecting import connected
from penstock.buses.contract import Bus
from penstock.cli import options
from penstock.cli.demo.folder import DemoFolder
from penstock.cli.demo.messages import BROKEN, messages_for
from penstock.cli.demo.report import Run, read_letters, read_totals, show_report
from penstock.cli.exits import Exit
from penstock.cli.progress import Show, showing
from penstock.cli.run import loop_factory, running_loop
from penstock.cli.secrets import masked
from penstock.cli.signals import stops
from penstock.cli.words import fail, say, secrets
from penstock.dead.letter import Letter
from penstock.demo import handlers, tables
from penstock.demo.library import source_files
from penstock.errors import ConfigurationError
from penstock.reactor.log import configure_logging
from penstock.reactor.service import Reactor, Statistics, Stop

#: Messages on their way to the bus at once.
BATCH: Final = 200
#: Nothing was settled for so long: somebody else has the messages, or the bus is away.
STALL_S: Final = 60.0
REFRESH_S: Final = 0.1
PURGED_AT_ONCE: Final = 1000


def run_demo(*, bus: str | None, database: str | None, keeps_earlier: bool, processes: int | None) -> Exit:
    """Run it and show the report; `OK` also when a signal stopped it.

    Raises what a reactor's start raises.
    """
    if database is not None and not database.startswith("sqlite:"):
        raise ConfigurationError(
            "penstock demo keeps its totals through the database channel, which speaks SQLite: --database sqlite:///FILE"
        )
    files = source_files()
    if not files:
        raise ConfigurationError(
            "this Python keeps its standard library in an archive: there are no files to index"
        )
    options.hide_main_module()
    folder = DemoFolder.make(keeps_earlier=keeps_earlier)
    try:
        return _Demo(files, folder, bus or folder.bus_url, database or folder.database_url, processes).run(
            purges=not keeps_earlier
        )
    finally:
        folder.release()


class _Demo:
    """One run; its folder, application and settings."""

    def __init__(
        self,
        files: Sequence[tuple[Path, str]],
        folder: DemoFolder,
        bus_url: str,
        database_url: str,
        processes: int | None,
    ) -> None:
        folder.write_settings(bus_url, database_url)
        self._settings = options.settings_from(
            bus=bus_url,
            database=database_url,
            directory=folder.path,
            workers={"processes": processes},
        )
        self._files = files
        self._folder = folder
        self._bus_url = bus_url
        self._database_url = database_url
        # A broker is everybody's: there the demo's queues have names that nobody else has.
        self._is_shared = not bus_url.startswith("sqlite:")
        self._queue = f"{handlers.PREFIX if self._is_shared else ''}files.found"
        self._messages = len(files) + BROKEN
        self._took_s = 0.0
        self._has_stalled = False

    def run(self, *, purges: bool) -> Exit:
        """Make the tables, run the reactor until everything is settled, show the report."""
        self._make_tables()
        log_fd = self._folder.open_log()
        section = self._settings.service.model_copy(update={"log_format": "json"})
        writer = configure_logging(section, fd=log_fd, extra=secrets.processor)
        try:
            with running_loop(loop_factory("auto")) as runner:
                if purges and self._is_shared:
                    runner.run(self._purge())
                statistics = runner.run(self._work())
                if not self._is_done(statistics):
                    return self._ended_early(statistics)
                letters = runner.run(read_letters(self._settings, self._queue))
        finally:
            writer.close()
            os.close(log_fd)
        return self._report(statistics, letters)

    async def _work(self) -> Statistics:
        """Consume, publish, and stop when all is settled, or a signal asks for it; returns how far it came."""
        stop = Stop()
        app = handlers.on_broker if self._is_shared else handlers.app
        address = f"penstock.demo.handlers:{'on_broker' if self._is_shared else 'app'}"
        bus = open_bus(self._settings.bus)
        reactor = Reactor(app, address, bus, self._settings)
        stops.forward(asyncio.get_running_loop(), stop.request, reactor.renew_workers)
        running = asyncio.create_task(reactor.run(stop), name="penstock-demo")
        ready = asyncio.create_task(reactor.ready.wait(), name="penstock-demo-ready")
        try:
            await asyncio.wait((ready, running), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                with showing(
                    f"indexing {len(self._files):,} files", self._messages + len(self._files)
                ) as show:
                    await self._publish_and_wait(bus, reactor, running, show)
        finally:
            ready.cancel()
            if not stop.requested.is_set():
                stop.request()
            await running
        return reactor.statistics()

    async def _publish_and_wait(
        self, bus: Bus, reactor: Reactor, running: asyncio.Task[None], show: Show
    ) -> None:
        began_s = moved_s = time.monotonic()
        settled = 0
        publishing = asyncio.create_task(self._publish(bus), name="penstock-demo-publish")
        done = asyncio.create_task(reactor.wait_until(self._is_done), name="penstock-demo-done")
        try:
            while not done.done() and not running.done():
                await asyncio.wait((done, running), timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)
                if publishing.done():
                    publishing.result()
                statistics = reactor.statistics()
                now_s = time.monotonic()
                if statistics.acked + statistics.dead != settled:
                    settled, moved_s = statistics.acked + statistics.dead, now_s
                    show(settled, settled)
                elif now_s - moved_s > STALL_S:
                    self._has_stalled = True
                    return
            self._took_s = time.monotonic() - began_s
        finally:
            done.cancel()
            publishing.cancel()
            await asyncio.wait((publishing,))

    async def _publish(self, bus: Bus) -> None:
        messages = messages_for(self._queue, self._files, self._folder.path)
        while batch := list(islice(messages, BATCH)):
            for error in await bus.publish(batch, timeout_s=self._settings.bus.confirm_timeout_s):
                if error is not None:
                    raise error

    def _is_done(self, statistics: Statistics) -> bool:
        # A message of the first queue that was handled has become one of the second.
        return statistics.acked + 2 * statistics.dead >= 2 * self._messages and statistics.unsettled == 0

    def _make_tables(self) -> None:
        engine = create_engine(self._database_url)
        try:
            tables.metadata.drop_all(engine)
            tables.metadata.create_all(engine)
        except DBAPIError as error:
            raise ConfigurationError(f"{masked(self._database_url)} cannot be used: {error.orig}") from error
        finally:
            engine.dispose()

    async def _purge(self) -> None:
        """Forget what an earlier demo, perhaps interrupted, has left in its queues."""
        async with connected(self._settings.bus) as bus:
            for name in (self._queue, self._queue.replace("found", "indexed")):
                for queue in (name, f"{name}.dead"):
                    while await bus.depth(queue):
                        async with bus.hold(queue, limit=PURGED_AT_ONCE) as deliveries:
                            async for delivery in deliveries:
                                delivery.settler.ack(delivery.tag)
                        await bus.flush()

    def _ended_early(self, statistics: Statistics) -> Exit:
        settled = statistics.acked + statistics.dead
        told = f"{settled:,} of {self._messages + len(self._files):,} messages were settled"
        if not self._has_stalled:
            say(f"stopped: {told}; what they wrote is in {masked(self._database_url)}")
            return Exit.OK
        fail(
            f"{told}, and then none for {STALL_S:.0f} s: does another demo run on this bus? "
            f"{self._folder.log} says what happened"
        )
        return Exit.NO

    def _report(self, statistics: Statistics, letters: Sequence[Letter]) -> Exit:
        run = Run(
            files=len(self._files),
            settled=statistics.acked + statistics.dead,
            took_s=self._took_s,
            processes=self._settings.workers.processes,
            queue=self._queue,
            bus_flag=self._bus_url if masked(self._bus_url) == self._bus_url else None,
        )
        totals = read_totals(self._database_url)
        show_report(run, totals, letters, self._folder, masked(self._database_url))
        if not totals.modules == totals.counted == len(self._files):
            fail(
                f"there should be {len(self._files):,} modules in both; {self._folder.log} says what happened"
            )
            return Exit.NO
        return Exit.OK
