"""A broker, a proxy before it, services behind that, a publisher and the ledger: what every fault is played on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, text

from tests.broker import Broker
from tests.crash.application import RUNS_VARIABLE, metadata
from tests.crash.ledger import Balance, Ledger
from tests.crash.proxy import Proxy
from tests.crash.publisher import OUT, Publisher
from tests.service.processes import ServiceProcess, kill_quietly, seconds_until_gone

#: Times are those of an idle machine; everyday runs share theirs with another test, and often with more.
SPARE = 4.0
APP: Final = "tests.crash.application:app"
QUEUES: Final = ("c.work", "c.classic", "c.limited", "c.loop")
#: How often another process's rows are looked at.
LOOK_S: Final = 0.02
READY: Final = "a worker is ready"
LOST: Final = (
    "connection to the broker lost: it is opened again; what runs goes on, what is published waits for it"
)
BACK: Final = "connection to the broker is back"


class Scene:
    """Everything that takes part in one run; `play` opens it."""

    def __init__(
        self, broker: Broker, url: str, proxy: Proxy, folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.broker = broker
        self.proxy = proxy
        self.folder = folder
        self.ledger = Ledger(folder)
        self.publisher = Publisher(url, self.ledger)
        self.services: list[ServiceProcess] = []
        self.ended: list[ServiceProcess] = []
        self.log_format = "json"
        """Of the services that are started from now on."""
        self._environment = {
            RUNS_VARIABLE: str(self.ledger.runs),
            # A silent broker is noticed after three times this, and one more second each.
            "PENSTOCK_BUS__HEARTBEAT_S": "2",
            "PENSTOCK_WORKERS__KILL_AFTER_S": "0.5",
            "PENSTOCK_SERVICE__DRAIN_SECONDS": "10",
            **environment,
        }

    @property
    def service(self) -> ServiceProcess:
        """The one that was started last."""
        return self.services[-1]

    async def start_service(
        self, *queues: str, processes: int = 2, environment: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """Start one more and wait until it consumes."""
        service = await self.launch_service(*queues, processes=processes, environment=environment)
        await service.wait_line("consuming")
        return service

    async def launch_service(
        self, *queues: str, processes: int = 2, environment: Mapping[str, str] | None = None
    ) -> ServiceProcess:
        """Start one more, which may not live long enough to consume."""
        only = [word for queue in queues or QUEUES for word in ("--only", queue)]
        service = await ServiceProcess.start(
            self.proxy.url,
            self.folder,
            *only,
            processes=processes,
            app=APP,
            environment={**self._environment, **(environment or {})},
            log_format=self.log_format,
        )
        self.services.append(service)
        return service

    async def ctl(self, *words: str) -> str:
        """The broker's own command line, while the loop goes on."""
        return await asyncio.to_thread(self.broker.ctl, *words)

    async def publish(self, queue: str, *tasks: Mapping[str, Any] | bytes, **properties: Any) -> list[str]:
        """Publish tasks that all have to be confirmed; returns their ids."""
        ids = await self.publisher.publish(queue, tasks, **properties)
        assert len(ids) == len(tasks), "the broker did not confirm everything"
        return ids

    def queues(self) -> list[str]:
        """The names of all queues."""
        listed = self.broker.ctl("list_queues", "--vhost", self.virtual_host, "name", "--no-table-headers")
        return listed.split()

    def unacked(self, queue: str) -> int:
        """Messages of a queue that are out with a consumer; the broker counts a quorum queue's every 5 s."""
        return self._counted(queue, "messages_unacknowledged")

    def ready(self, queue: str) -> int:
        """Messages of a queue that wait; 0 when there is no such queue."""
        return self._counted(queue, "messages_ready")

    def _counted(self, queue: str, what: str) -> int:
        listed = self.broker.ctl(
            "list_queues", "--vhost", self.virtual_host, "--no-table-headers", "name", what
        )
        rows = dict(line.split("\t") for line in listed.splitlines() if "\t" in line)
        return int(rows.get(queue) or 0)

    # --- waiting

    async def until(self, condition: Callable[[], object], deadline_s: float = 60.0) -> None:
        """Another process's rows send no event, so they are looked at again and again."""
        async with asyncio.timeout(deadline_s):
            while not condition():  # noqa: ASYNC110 - see above
                await asyncio.sleep(LOOK_S)

    async def done(self, ids: Iterable[str], deadline_s: float = 60.0) -> None:
        """Wait until each of these has an effect."""
        missing = set(ids)

        def all_done() -> bool:
            missing.difference_update(effect.message_id for effect in self.ledger.effects_of(missing))
            return not missing

        try:
            await self.until(all_done, deadline_s)
        except TimeoutError:
            said = "\n".join(str(line) for line in self.service.lines[-30:])
            raise AssertionError(
                f"no effect after {deadline_s:g} s: {sorted(missing)[:20]}\n{said}"
            ) from None

    async def begun(self, id_: str, times: int = 1) -> None:
        """Wait until the handling of this message has begun so many times."""
        await self.until(lambda: self.ledger.run_counts()[id_] >= times)

    async def recovered(self, queue: str = "c.work", deadline_s: float = 60.0) -> float:
        """Publish one message now; seconds from its confirm to its effect."""
        confirmed: list[str] = []
        async with asyncio.timeout(deadline_s):
            while not confirmed:
                confirmed = await self.publisher.publish(queue, [{}], prefix="probe")
        confirmed_s = time.monotonic()
        await self.done(confirmed, deadline_s)
        return max(0.0, self.ledger.effects_of(confirmed)[0].at_s - confirmed_s)

    # --- faults that belong to processes

    async def kill_broker(self) -> None:
        """SIGKILL; nobody can connect from now on."""
        await self.proxy.refuse()
        await asyncio.to_thread(self.broker.kill)

    async def stop_broker(self) -> None:
        """End it in order; nobody can connect from now on."""
        await self.proxy.refuse()
        await asyncio.to_thread(self.broker.stop)

    async def start_broker(self) -> None:
        """Boot it again, and let people in."""
        await asyncio.to_thread(self.broker.start)
        await self.proxy.listen()

    def kill_worker(self, pid: int, number: int = signal.SIGKILL) -> bool:
        """False when it had gone already."""
        self.ledger.killed(pid)
        return kill_quietly(pid, number)

    async def kill_service(self, service: ServiceProcess | None = None) -> float:
        """SIGKILL to a reactor; seconds until its workers were gone."""
        service = service or self.service
        workers = service.worker_pids
        await service.kill()
        self.note_end(service)
        return await asyncio.to_thread(seconds_until_gone, workers)

    async def stop_service(self, service: ServiceProcess | None = None) -> None:
        """SIGTERM, and it has to end in order."""
        service = service or self.service
        code = await service.stop()
        self.note_end(service)
        assert code == 0, service.lines[-20:]

    def note_end(self, service: ServiceProcess) -> None:
        """It has ended, and its log is kept."""
        self.services.remove(service)
        self.ended.append(service)

    # --- the end

    async def close(self) -> Balance:
        """Stop the services in order and draw the balance."""
        for service in list(self.services):
            await self.stop_service(service)
        return await self.balance()

    async def balance(self) -> Balance:
        """Compare the books with what the broker has; it has nothing afterwards."""
        listed = (
            await self.ctl("list_queues", "--vhost", self.virtual_host, "name", "--no-table-headers")
        ).split()
        rest = await self.publisher.rest([*listed, OUT] if OUT not in listed else listed)
        assert "unknown delivery tag" not in self.broker_log, "something was settled twice"
        return self.ledger.close(rest)

    @property
    def virtual_host(self) -> str:
        """Of the broker, for its command line."""
        return self.proxy.url.rpartition("/")[2] or "/"

    @property
    def broker_log(self) -> str:
        """Everything that the broker said; empty where it cannot be read."""
        return str(getattr(self.broker, "log", ""))

    async def aclose(self) -> None:
        """Kill what is left and close."""
        for service in list(self.services):
            kill_quietly(service.pid, signal.SIGCONT)
            await self.kill_service(service)
        await self.publisher.aclose()
        self.ledger.aclose()


@asynccontextmanager
async def play(
    broker: Broker,
    folder: Path,
    *queues: str,
    url: str | None = None,
    services: int = 1,
    log_format: str = "json",
    **settings: str,
) -> AsyncIterator[Scene]:
    """A scene with running services, all queues unless some are named; `settings` are PENSTOCK_ variables of theirs."""
    url = url or broker.url
    make_database(folder)
    environment = {f"PENSTOCK_{name}": value for name, value in settings.items()}
    async with Proxy(url) as proxy:
        scene = Scene(broker, url, proxy, folder, environment)
        scene.log_format = log_format
        try:
            await scene.publisher.declare_out()
            for _ in range(services):
                await scene.start_service(*queues)
            yield scene
        finally:
            await scene.aclose()


def make_database(folder: Path) -> None:
    """The effects table in a new file."""
    engine = create_engine(f"sqlite:///{folder / 'app.db'}")
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        metadata.create_all(connection)
    engine.dispose()


def descriptors(pid: int) -> int:
    """Open file descriptors of a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def even(balance: Balance, **counts: int) -> None:
    """Assert that the books agree, and the counts that are given."""
    assert balance.is_even, balance
    found = {name: getattr(balance, name) for name in counts}
    assert found == counts, balance


def tasks(count: int, **fields: Any) -> Sequence[dict[str, Any]]:
    """So many equal tasks."""
    return [dict(fields) for _ in range(count)]
