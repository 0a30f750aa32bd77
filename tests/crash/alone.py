"""A service on the embedded bus and the same ledger, for faults that belong to the machine and to no broker."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.embedded import EmbeddedBus
from tests.crash.application import RUNS_VARIABLE, app
from tests.crash.ledger import Balance, Ledger, Rest
from tests.crash.scene import APP, LOOK_S, make_database
from tests.embedded.section import section_of
from tests.service.processes import ServiceProcess, kill_quietly


class Alone:
    """Everything that takes part; `alone` opens it."""

    def __init__(self, folder: Path, database_folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.bus = EmbeddedBus(section_of(folder / "bus.db"), free_floor_bytes=0)
        self.ledger = Ledger(folder)
        self.ledger.database = database_folder / "app.db"
        self.services: list[ServiceProcess] = []
        self._database_folder = database_folder
        self._environment = {
            RUNS_VARIABLE: str(self.ledger.runs),
            "PENSTOCK_WORKERS__KILL_AFTER_S": "0.5",
            **environment,
        }
        self._numbers = itertools.count()

    @property
    def service(self) -> ServiceProcess:
        """The one that was started last."""
        return self.services[-1]

    async def start_service(self, *queues: str, processes: int = 2, app: str = APP) -> ServiceProcess:
        """Start one more and wait until it consumes and every worker is ready."""
        service = await ServiceProcess.start(
            f"sqlite:///{self.folder / 'bus.db'}",
            self._database_folder,
            *(word for queue in queues or ("c.work",) for word in ("--only", queue)),
            processes=processes,
            app=app,
            environment=self._environment,
        )
        self.services.append(service)
        await service.wait_line("consuming")
        await service.wait_line("a worker is ready", count=processes)
        return service

    async def publish(self, queue: str, *tasks: Mapping[str, Any], delay_s: float = 0.0) -> list[str]:
        """Publish tasks that all have to be confirmed; returns their ids."""
        ids = [f"m{next(self._numbers)}" for _ in tasks]
        self.ledger.published.update(ids)
        messages = [
            Outgoing(
                queue,
                json.dumps(task).encode(),
                message_id=id_,
                content_type="application/json",
                delay_s=delay_s,
            )
            for id_, task in zip(ids, tasks, strict=True)
        ]
        answers = await self.bus.publish(messages, timeout_s=20)
        assert answers == [None] * len(ids), answers
        self.ledger.confirm(queue, ids)
        return ids

    async def done(self, ids: Iterable[str], deadline_s: float = 60.0) -> None:
        """Wait until each of these has an effect; nobody tells us, so they are looked for again and again."""
        missing = set(ids)
        try:
            async with asyncio.timeout(deadline_s):
                while missing:
                    missing -= {effect.message_id for effect in self.ledger.effects_of(missing)}
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            said = "\n".join(map(str, self.service.lines[-30:]))
            raise AssertionError(
                f"no effect after {deadline_s:g} s: {sorted(missing)[:20]}\n{said}"
            ) from None

    async def close(self) -> Balance:
        """Stop the services in order and draw the balance."""
        for service in self.services:
            if service.returncode is None:
                assert await service.stop() == 0, service.lines[-20:]
        rest = Rest()
        for handler in app.handlers:
            for name in (handler.queue.name, f"{handler.queue.name}.dead"):
                if await self.bus.depth(name):
                    async with self.bus.hold(name, limit=10_000) as held:
                        async for delivery in held:
                            id_ = str(delivery.message_id)
                            if name.endswith(".dead"):
                                rest.dead[id_] = str(delivery.headers.get("x-penstock-reason", "no reason"))
                                rest.dead_count += 1
                            else:
                                rest.queued.append(id_)
        return self.ledger.close(rest)

    async def aclose(self) -> None:
        """Kill what is left and close."""
        for service in self.services:
            if service.returncode is None:
                kill_quietly(service.pid)
                await service.wait()
        await self.bus.aclose()
        self.ledger.aclose()


@asynccontextmanager
async def alone(
    folder: Path,
    *,
    database_folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: str,
) -> AsyncIterator[Alone]:
    """No service runs yet; `settings` are PENSTOCK_ variables of theirs."""
    database_folder = database_folder or folder
    make_database(database_folder)
    scene = Alone(
        folder,
        database_folder,
        {**(environment or {}), **{f"PENSTOCK_{name}": value for name, value in settings.items()}},
    )
    try:
        await scene.bus.connect()
        await scene.bus.declare([QueueDeclaration(name=handler.queue.name) for handler in app.handlers])
        yield scene
    finally:
        await scene.aclose()
