"""A database server under fault: a service at work on it, waves of messages, and the books of what became of them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pymysql

from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.config import load_settings
from tests.crash.rows import ASKED, BEGUN, RUNS_VARIABLE, URL_VARIABLE
from tests.servers import MariaDBServer, Server
from tests.service.processes import ServiceProcess

WORKERS: Final = 3
#: Of the database channel, for all workers together.
CHANNEL_CONNECTIONS: Final = 2
DEADLINE_S: Final = 60.0
_LOOK_S: Final = 0.02
_TABLE: Final = (
    "CREATE TABLE done (message_id VARCHAR(40) NOT NULL, attempt INTEGER NOT NULL, after_what VARCHAR(40), "
    "pid INTEGER NOT NULL, connection BIGINT NOT NULL)"
)
#: What the service is told for each way to the database.
WAYS: Final[dict[str, dict[str, str]]] = {
    "own": {},
    # The same by mysqlclient, for MariaDB only.
    "mysqldb": {},
    "session": {"SESSION": "tests.crash.rows:DBSession"},
    "engine": {"ENGINE": "tests.crash.rows:engine"},
    "channel": {},
    "db": {},
}
#: How many connections the service may hold; with `ctx.db` each worker has its own beside it, for `ctx.connection`.
MOST_CONNECTIONS: Final = {"channel": CHANNEL_CONNECTIONS, "db": WORKERS + CHANNEL_CONNECTIONS}


@dataclass(frozen=True)
class Done:
    """A row."""

    message_id: str
    attempt: int
    after: str | None
    pid: int
    connection: int


@dataclass
class Wave:
    """Messages that were published together, and what became of them."""

    ids: list[str]
    done: dict[str, list[Done]]
    runs: Counter[str]
    asked: Counter[str]

    @property
    def retried(self) -> list[str]:
        """Messages that were run more than once."""
        return sorted(id_ for id_, runs in self.runs.items() if runs > 1)

    @property
    def unexplained(self) -> list[str]:
        """Messages without an effect, or with one that nobody said might be the second."""
        found = [f"{id_}: no effect" for id_ in self.ids if id_ not in self.done]
        for id_, rows in self.done.items():
            marked = sum(1 for row in rows if row.after == "commit unknown")
            # A handler of `ctx.db` commits by itself: it had asked for the commit, and was run again.
            by_itself = self.asked[id_] - 1
            if len(rows) - 1 > max(marked, by_itself):
                found.append(f"{id_}: {rows}")
        return found


class DatabaseScene:
    """The service, its server and its messages; `play_on` opens it."""

    def __init__(
        self, server: Server, url: str, way: str, bus_url: str, folder: Path, *, queue: str | None
    ) -> None:
        self.server = server
        self.way = way
        self.queue = queue or ("r.own" if way in {"engine", "mysqldb"} else f"r.{way}")
        self._url = url.replace("mysql+pymysql", "mysql+mysqldb") if way == "mysqldb" else url
        self._runs = folder / "runs.log"
        self._waves = 0
        self._bus = open_bus(load_settings({"bus": {"url": bus_url}}, directory=folder).bus)
        self.service: ServiceProcess

    @property
    def most_connections(self) -> int:
        """How many the service may hold."""
        return MOST_CONNECTIONS.get(self.way, WORKERS)

    async def wave(self, count: int, fault: Callable[[], None] | None = None) -> Wave:
        """Publish so many, do the worst when a third of them is done, and wait until all are."""
        ids = await self.publish(count)
        if fault is not None:
            await self.until(lambda: len(self._done(ids)) >= count // 3)
            await asyncio.to_thread(fault)
        return await self.ended(ids)

    async def publish(self, count: int) -> list[str]:
        """A wave's messages, confirmed; returns their ids."""
        self._waves += 1
        ids = [f"w{self._waves}-{number}" for number in range(count)]
        errors = await self._bus.publish(
            [make_outgoing(self.queue, {"held_s": 0.02}, id=id_) for id_ in ids], timeout_s=DEADLINE_S
        )
        assert errors == [None] * count
        return ids

    async def ended(self, ids: list[str]) -> Wave:
        """Once each of them has its row."""
        await self.until(lambda: len(self._done(ids)) == len(ids))
        runs, asked = self._noted(BEGUN), self._noted(ASKED)
        return Wave(
            ids,
            self._done(ids),
            Counter({id_: runs[id_] for id_ in ids}),
            Counter({id_: asked[id_] for id_ in ids}),
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that only the server or a file can tell."""
        async with asyncio.timeout(DEADLINE_S):
            while not await asyncio.to_thread(holds):
                assert self.service.returncode is None, self.service.lines[-20:]
                dead = [line for line in self.service.lines if line["event"] == "message dead lettered"]
                assert dead == [], dead[0]
                await asyncio.sleep(_LOOK_S)

    async def connections(self, count: int) -> list[int]:
        """The server's own list, once it has so many."""
        return await asyncio.to_thread(self.server.connections_once, self._url, count)

    def kill_connections(self) -> None:
        """From the server's side, every one."""
        for number in self.server.connections(self._url):
            # It may be one of ours, which has ended by itself.
            with suppress(pymysql.MySQLError):
                self.server.kill_connection(number)

    def kill_server(self) -> None:
        """SIGKILL, and a new start."""
        self.server.kill()
        self.server.start()

    def set_idle_limit(self, seconds: int) -> None:
        """Of connections that are opened from now on; 0 is none."""
        if isinstance(self.server, MariaDBServer):
            self.server.execute(f"SET GLOBAL wait_timeout = {seconds or 28800}")
        else:
            self.server.execute(f"ALTER SYSTEM SET idle_session_timeout = '{seconds}s'")
            self.server.execute("SELECT pg_reload_conf()")

    def rude_goodbyes(self) -> int:
        """How many clients the server says have left without a word, since it was started."""
        if isinstance(self.server, MariaDBServer):
            ((_, value),) = self.server.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
            return int(value)
        log = self.server.log
        return log.count("unexpected EOF") + log.count("could not receive data from client")

    async def dead_letters(self) -> list[str]:
        """Their reasons."""
        async with self._bus.hold(f"{self.queue}.dead", limit=1000) as letters:
            return [str(letter.headers.get("x-penstock-reason")) async for letter in letters]

    async def open(self, bus_url: str, folder: Path) -> None:
        """Make the table, start the service, and wait until it consumes."""
        self.server.execute(_TABLE, url=self._url)
        self.server.execute("CREATE INDEX done_by_id ON done (message_id)", url=self._url)
        await self._bus.connect()
        self.service = await ServiceProcess.start(
            bus_url,
            folder,
            *("--only", self.queue, "--database", self._url),
            processes=WORKERS,
            app="tests.crash.rows:app",
            environment={
                URL_VARIABLE: self._url,
                RUNS_VARIABLE: str(self._runs),
                "PENSTOCK_DATABASE__SERVER_CONNECTIONS": str(CHANNEL_CONNECTIONS),
                "PENSTOCK_DATABASE__CONNECT_BACKOFF_CAP_S": "0.2",
                "PENSTOCK_WORKERS__KILL_AFTER_S": "0.3",
                **{f"PENSTOCK_DATABASE__{name}": value for name, value in WAYS[self.way].items()},
            },
        )
        await self.service.wait_line("consuming")

    async def stop(self) -> None:
        """SIGTERM, which has to end in order."""
        assert await self.service.stop() == 0, self.service.lines[-20:]

    async def aclose(self) -> None:
        """Kill what is left and close."""
        await self.service.kill()
        await self._bus.aclose()

    def _done(self, ids: list[str]) -> dict[str, list[Done]]:
        found: defaultdict[str, list[Done]] = defaultdict(list)
        wave = ids[0].partition("-")[0]
        rows = self.server.execute(
            f"SELECT message_id, attempt, after_what, pid, connection FROM done WHERE message_id LIKE '{wave}-%'",
            url=self._url,
        )
        for row in rows:
            found[row[0]].append(Done(*row))
        return dict(found)

    def _noted(self, what: str) -> Counter[str]:
        lines = [line.split() for line in self._runs.read_text(encoding="ascii").splitlines()]
        return Counter(line[0] for line in lines if line[1] == what)


@asynccontextmanager
async def play_on(
    server: Server, way: str, bus_url: str, folder: Path, *, queue: str | None = None
) -> AsyncIterator[DatabaseScene]:
    """A service with `WORKERS` workers on an empty database of this server; another queue than the way's own if named."""
    scene = DatabaseScene(server, server.new_database(), way, bus_url, folder, queue=queue)
    await scene.open(bus_url, folder)
    try:
        yield scene
    finally:
        await scene.aclose()
