"""One worker's PEP 249 calls, as they cross; without a driver around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import Raw

from penstock.channels import wire
from penstock.channels.db.calls import Chunk, End, Failed, Fetch, Ran, Run
from penstock.channels.db.exact import arrived, crossing
from penstock.channels.db.service import DatabaseService
from penstock.channels.service import Caller

_decode = msgspec.msgpack.Decoder(list[list[Any]], ext_hook=arrived).decode


class Worker:
    """One worker's calls, as they cross."""

    def __init__(self, service: DatabaseService, name: str = "worker") -> None:
        self.service = service
        self.caller = Caller(name)

    async def call(self, method: str, asked: Any) -> Any:
        return await self.service.call(method, Raw(wire.encode(asked)), self.caller)

    async def run(self, statement: str, parameters: Any = None, **options: Any) -> Ran:
        answer = await self.try_to_run(statement, parameters, **options)
        assert isinstance(answer, Ran), answer
        return answer

    async def try_to_run(self, statement: str, parameters: Any = None, **options: Any) -> Ran | Failed:
        answer: Ran | Failed = await self.call(
            "run", Run(statement, crossing(parameters, "parameters"), **options)
        )
        return answer

    async def fail(self, statement: str, parameters: Any = None, **options: Any) -> Failed:
        answer = await self.try_to_run(statement, parameters, **options)
        assert isinstance(answer, Failed), answer
        return answer

    async def rows(self, statement: str, parameters: Any = None, **options: Any) -> list[list[Any]]:
        ran = await self.run(statement, parameters, **options)
        return [row async for row in self.rest(ran)]

    async def rest(self, ran: Ran) -> AsyncIterator[list[Any]]:
        async for chunk in self.chunks(ran):
            for piece in chunk.rows:
                for row in _decode(piece):
                    yield row

    async def chunks(self, ran: Ran) -> AsyncIterator[Chunk]:
        chunk: Any = ran.chunk
        yield chunk
        while not chunk.is_last:
            chunk = await self.call("fetch", Fetch(ran.cursor or 0))
            assert isinstance(chunk, Chunk), chunk
            yield chunk

    async def end(self, ran: Ran | Failed, *, commit: bool = True) -> Failed | None:
        assert ran.transaction is not None
        answer: Failed | None = await self.call("end", End(ran.transaction, is_commit=commit))
        return answer
