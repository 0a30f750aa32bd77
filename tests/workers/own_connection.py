"""A worker's connection on a file of its own, driven as a worker drives it."""

import logging
import sqlite3
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from structlog.testing import LogCapture

from penstock.config.database import DatabaseSection
from penstock.workers.connection import OwnConnection

T = TypeVar("T")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


ITEMS: Table = Base.metadata.tables["item"]


class EnoughSeenError(Exception):
    """Ends a waiting that in a worker ends with its process."""


class Worker:
    """Holds an OwnConnection and hands it messages; `on_line` sees the log grow, and may raise `EnoughSeenError`."""

    def __init__(
        self, url: str, *, on_line: Callable[[int], None] = lambda _lines: None, **options: Any
    ) -> None:
        self._capture = LogCapture()
        self._on_line = on_line
        log = structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=[self._note],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        )
        self.own = OwnConnection(DatabaseSection.model_validate({"url": url, **options}), log=log)

    @property
    def log(self) -> list[MutableMapping[str, Any]]:
        return self._capture.entries

    def _note(self, logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        try:
            return self._capture(logger, method, line)
        finally:
            self._on_line(len(self.log))

    def message(self, handler: Callable[[OwnConnection], T], name: str = "store") -> T:
        """Run one message as the executor does: begin, handler, commit; rollback when anything raises."""
        self.own.begin(name)
        try:
            result = handler(self.own)
            if self.own.in_transaction:
                self.own.commit()
        except BaseException:
            self.own.rollback()
            raise
        return result

    def driver_connection(self) -> Any:
        """The driver's own connection, while no message runs."""
        return self.message(lambda own: own.connection.connection.driver_connection, "look")


def until_lines(most: int) -> Callable[[int], None]:
    """So many lines of the log are enough."""

    def count(lines: int) -> None:
        if lines >= most:
            raise EnoughSeenError

    return count


@contextmanager
def worker_on(path: Path, **options: Any) -> Iterator[Worker]:
    """A worker with an open connection and the tables."""
    worker = Worker(f"sqlite:///{path}", **options)
    worker.own.open()
    worker.message(lambda own: Base.metadata.create_all(own.connection), "create")
    try:
        yield worker
    finally:
        worker.own.close()


@contextmanager
def somebody_else_on(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection, which does not wait for locks."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        yield other


def names_in(path: Path) -> list[str]:
    """What is committed, as another program sees it."""
    with somebody_else_on(path) as other:
        return [name for (name,) in other.execute("SELECT name FROM item ORDER BY id")]
