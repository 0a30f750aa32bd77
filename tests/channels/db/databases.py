"""One database of each kind behind a service of its own, and SQLAlchemy's plain engine beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, MetaData, create_engine

from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.service import DatabaseService
from penstock.channels.db.stub import DatabaseStub
from penstock.config.database import DatabaseSection
from tests.channels.conftest import FRAME_BYTES, Workshop, local

KINDS: Final = ("sqlite", "mariadb", "postgresql")


class Case:
    """One database, the channel's way to it, and the plain way."""

    def __init__(self, kind: str, url: str, workshop: Workshop) -> None:
        self.kind = kind
        self.url = url
        self.engine: Engine = create_engine(url)
        self._workshop = workshop
        self.services: list[DatabaseService] = []

    async def service(self, *, frame_bytes: int = FRAME_BYTES, **settings: Any) -> DatabaseService:
        section = DatabaseSection.model_validate({"url": self.url, **settings})
        service = DatabaseService(section, frame_bytes=frame_bytes)
        self.services.append(service)
        await service.start()
        return service

    async def local(self, metadata: MetaData | None = None, **settings: Any) -> LocalDatabase:
        """An async handler's `ctx.db`, and the tables made."""
        if metadata is not None:
            await asyncio.to_thread(metadata.create_all, self.engine)
        return local(await self.service(**settings))

    async def stub(
        self, metadata: MetaData | None = None, *, frame_bytes: int = FRAME_BYTES, **settings: Any
    ) -> DatabaseStub:
        """A worker's `ctx.db`, and the tables made."""
        if metadata is not None:
            await asyncio.to_thread(metadata.create_all, self.engine)
        service = await self.service(frame_bytes=frame_bytes, **settings)
        channel = await self._workshop.channel_to({"db": service}, limit_bytes=frame_bytes)
        return DatabaseStub(channel, is_server=self.kind != "sqlite")

    def plain(self, statement: Any, parameters: Any = None) -> list[dict[str, Any]]:
        """What the plain engine says, committed."""
        with self.engine.begin() as connection:
            result = connection.execute(statement, parameters)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    async def aclose(self) -> None:
        for service in self.services:
            await service.aclose()
        self.engine.dispose()


class Crossings:
    """What crossed: methods, in order, and the rows of each answer in bytes."""

    def __init__(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        self.methods: list[str] = []
        self.largest = 0
        service = case.services[-1]
        call = service.call

        async def noting(method: str, arguments: Any, caller: Any) -> Any:
            self.methods.append(method)
            answer = await call(method, arguments, caller)
            chunk = getattr(answer, "chunk", answer)
            sizes = [memoryview(piece).nbytes for piece in getattr(chunk, "rows", ())]
            self.largest = max(self.largest, sum(sizes))
            return answer

        monkeypatch.setattr(service, "call", noting)


def case_of(request: pytest.FixtureRequest, tmp_path: Path, workshop: Workshop) -> Case:
    """The one that the test's parameter names."""
    kind = str(request.param)
    url = f"sqlite:///{tmp_path / 'app.db'}" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    return Case(kind, url, workshop)


def open_results(service: DatabaseService) -> int:
    """Results that are not read to their end on the loop's side, and readers that somebody has."""
    if service._server is not None:
        return len(service._server._cursors)
    return (
        0
        if service._sqlite._cursors is None
        else len(service._sqlite._cursors._held) + len(service._sqlite._cursors._lending._lent)
    )


def open_transactions(service: DatabaseService) -> int:
    """Transactions that hold a connection, or the writer."""
    if service._server is not None:
        return len(service._server._transactions)
    return sum(transaction.why_over is None for transaction in service._sqlite._transactions.values())
