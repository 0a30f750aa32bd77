"""The loop's end of one worker's socket: frames in, calls to services, answers out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, cast

import msgspec
from msgspec import Raw

from penstock.channels import wire
from penstock.channels.frames import FrameDecoder, encode_frame
from penstock.channels.service import Caller, Service
from penstock.errors import ChannelError, FrameError


class ChannelServer(asyncio.Protocol):
    """Serves one worker incarnation; a dead worker's calls are cancelled and its holdings freed.

    `on_ended` and `on_line` are called on the loop, in the order in which the worker wrote. What `on_line` raises
    is told to the loop's exception handler: a line of the log is not worth the channel.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        caller: Caller,
        *,
        limit_bytes: int,
        on_ended: Callable[[wire.Ended], None],
        on_line: Callable[[wire.Line], None],
    ) -> None:
        self._services = services
        self._caller = caller
        self._limit_bytes = limit_bytes
        self._on_ended = on_ended
        self._on_line = on_line
        self._decoder = FrameDecoder(limit_bytes=limit_bytes)
        self._transport: asyncio.Transport | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self._writable = asyncio.Event()
        self._writable.set()
        self.eof: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        """Done when everything that the worker wrote has been read: None, or the fault of the stream."""

    @classmethod
    async def start(
        cls, sock: socket.socket, services: Mapping[str, Service], caller: Caller, **options: Any
    ) -> ChannelServer:
        """Serve the socket on the running loop; it belongs to the server from here on."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(services, caller, **options), sock=sock)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        """The worker does not read as fast as it is answered: answers wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Answers may leave again."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Serve what the worker wrote; a stream that cannot be read is closed."""
        try:
            for payload in self._decoder.feed(data):
                self._received(wire.decode_from_worker(payload))
        except (FrameError, msgspec.DecodeError) as error:
            self._finish(error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing comes any more."""
        self._writable.set()
        self._finish(exc)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_calls_forgotten(self) -> None:
        """Returns when no call of a dead worker runs any more."""
        if self._calls:
            await asyncio.wait(self._calls)

    def _received(self, message: wire.FromWorker) -> None:
        if isinstance(message, wire.Call):
            task = asyncio.create_task(self._serve(message), name=f"{message.service}.{message.method}")
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        elif isinstance(message, wire.Ended):
            self._on_ended(message)
        else:
            self._write(message)

    def _write(self, line: wire.Line) -> None:
        try:
            self._on_line(line)
        except Exception as error:  # noqa: BLE001 - raised from here, it would close the channel and cost a worker
            asyncio.get_running_loop().call_exception_handler(
                {
                    "message": f"a line of the log of {self._caller.name} could not be written and is lost: {line.event!r}",
                    "exception": error,
                }
            )

    async def _serve(self, call: wire.Call) -> None:
        try:
            service = self._services.get(call.service)
            if service is None:
                known = ", ".join(sorted(self._services))
                msg = f"no channel is named {call.service!r}; there are: {known}"
                raise ChannelError(msg)  # noqa: TRY301 - answered below like every refusal
            value = await service.call(call.method, call.arguments, self._caller)
            # A service that has encoded its value already is not made to pay for it twice.
            answer: wire.FromLoop = wire.Answer(
                call.id, value if isinstance(value, Raw) else Raw(wire.encode(value))
            )
            frame = encode_frame(wire.encode(answer), limit_bytes=self._limit_bytes)
        except asyncio.CancelledError as error:
            # aio-pika cancels what waits on a broken connection; nobody cancelled us, and the caller waits.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            frame = self._refusal(call, error)
        except Exception as error:  # noqa: BLE001 - every fault of a call is the caller's answer
            frame = self._refusal(call, error)
        await self._writable.wait()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _refusal(self, call: wire.Call, error: BaseException) -> bytes:
        refused = wire.refusal(call.id, error, limit_bytes=self._limit_bytes)
        return encode_frame(wire.encode(refused), limit_bytes=self._limit_bytes)

    def _finish(self, fault: BaseException | None) -> None:
        if self.eof.done():
            return
        self.eof.set_result(fault)
        for task in self._calls:
            task.cancel()
        # Each service is told, also when another one's `forget` raises.
        with ExitStack() as told:
            for service in self._services.values():
                told.callback(service.forget, self._caller)
