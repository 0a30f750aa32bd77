"""A database to try the worker's own connection on, as the test sees it from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from penstock.app.application import App
from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.config.database import DatabaseSection
from penstock.testing import Worker
from penstock.testing.result import Result
from tests.servers import Server

#: A place where nothing but text crosses: every database here understands it.
TABLE = "CREATE TABLE item (id INTEGER PRIMARY KEY, name VARCHAR(200), n INTEGER NOT NULL)"


@dataclass(frozen=True)
class Place:
    """A database with an empty table `item`; `server` is None for a file."""

    kind: str
    url: str
    server: Server | None = None
    way: DatabaseWay = "own"
    #: Of [database], for every worker here.
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> Server:
        assert self.server is not None
        return self.server

    @property
    def connections(self) -> list[int]:
        """The server's own list of connections to this database."""
        return self.running.connections(self.url)

    def connections_once(self, count: int) -> list[int]:
        """The same, once there are so many."""
        return self.running.connections_once(self.url, count)

    @contextmanager
    def outside(self) -> Iterator[Connection]:
        """A connection of another program's, in a transaction of its own."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def rows(self) -> list[tuple[Any, ...]]:
        """(id, name, n) of what is committed."""
        with self.outside() as other:
            return [tuple(row) for row in other.execute(text("SELECT id, name, n FROM item ORDER BY id"))]

    def fill(self, count: int) -> None:
        """Rows 1 to count, n = 0."""
        with self.outside() as other:
            other.execute(
                text("INSERT INTO item (id, name, n) VALUES (:id, 'item', 0)"),
                [{"id": number} for number in range(1, count + 1)],
            )
            other.commit()

    @contextmanager
    def worker(
        self, handler: Callable[..., Any], *more: Callable[..., Any], url: str | None = None, **settings: Any
    ) -> Iterator[Running]:
        """A worker on this database, whose handlers have the queues q0, q1, …"""
        app = App()
        for number, function in enumerate((handler, *more)):
            app.handler(f"q{number}", database=self.way)(function)
        with running_on(app, url or self.url, **{**self.settings, **settings}) as running:
            yield running


class Running:
    """A booted worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def run(self, payload: Any = 1, queue: str = "q0", **message: Any) -> Result:
        """One message, as a service would run it."""
        return self.worker.run(queue, payload, **message)


@contextmanager
def running_on(app: App, url: str | None, **settings: Any) -> Iterator[Running]:
    """A worker in this process, with these settings of [database]."""
    worker = Worker(app, state=SimpleNamespace())
    worker._database = DatabaseSection.model_validate(
        {**({} if url is None else {"url": SecretStr(url)}), **settings}
    )
    with worker:
        yield Running(worker)


def put(ctx: Context, number: int, name: str = "item") -> None:
    """One row, in the message's transaction."""
    ctx.connection.execute(
        text("INSERT INTO item (id, name, n) VALUES (:id, :name, 0)"), {"id": number, "name": name}
    )


def store(payload: int, ctx: Context) -> None:
    """The plain handler."""
    put(ctx, payload)
