"""Stub and server against each other, over a real socket pair: the stub in a thread, the server on the loop."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from penstock import errors
from penstock.app.outcomes import Failure, Outcome, Raised
from penstock.channels import wire
from penstock.channels.frames import encode_frame
from penstock.channels.service import Caller
from penstock.channels.serving import ChannelServer
from penstock.channels.stub import Channel
from penstock.errors import (
    ChannelClosed,
    ChannelError,
    DatabaseBusy,
    DeadlineExceeded,
    FrameError,
    PenstockError,
)
from penstock.workers.deadline import SoftDeadline
from tests import soft_deadline
from tests.channels.conftest import LIMIT_BYTES, Workshop


class Echo:
    """A service that does what it is told."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.forgotten: list[str] = []

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:  # noqa: ARG002
        value = msgspec.msgpack.decode(arguments)
        self.called.set()
        match method:
            case "echo":
                return value
            case "packed":
                return arguments
            case "forever":
                try:
                    await asyncio.Event().wait()
                finally:
                    self.cancelled.set()
            case "unanswerable":
                return object()
            case "surrogate":
                msg = "lone \ud800 surrogate"
                raise ChannelError(msg)
            case "wordy":
                raise ChannelError("ä" * LIMIT_BYTES)
            case "busy":
                msg = "held by slot 7"
                raise DatabaseBusy(msg, "OperationalError")
            case "bug":
                return 1 // 0
            case "cancels itself":
                broken = asyncio.get_running_loop().create_future()
                broken.cancel()
                await broken
        return None

    def forget(self, caller: Caller) -> None:
        self.forgotten.append(caller.name)


async def test_values_come_back_as_they_were_sent(workshop: Workshop) -> None:
    channel = await workshop.channel_to({"echo": Echo()})
    for value in (None, 1, 2.5, "ä", b"\x00", [1, [2]], {"a": None}, "x" * 500_000):
        assert await asyncio.to_thread(channel.call, "echo", "echo", value) == value
        assert await asyncio.to_thread(channel.call, "echo", "packed", value) == value


@pytest.mark.parametrize(
    ("service", "method", "kind", "words"),
    [
        ("nobody", "echo", ChannelError, "no channel is named 'nobody'; there are: echo"),
        ("echo", "unanswerable", ChannelError, "TypeError: .*object"),
        ("echo", "surrogate", ChannelError, r"lone \\ud800 surrogate"),
        ("echo", "busy", DatabaseBusy, "held by slot 7"),
        ("echo", "bug", ChannelError, "ZeroDivisionError: "),
        ("echo", "cancels itself", ChannelError, "CancelledError"),
        ("echo", "wordy", ChannelError, "^ä+$"),
    ],
)
async def test_every_way_to_fail_is_an_answer_in_words(
    workshop: Workshop, service: str, method: str, kind: type[PenstockError], words: str
) -> None:
    channel = await workshop.channel_to({"echo": Echo()})
    with pytest.raises(kind, match=words) as caught:
        await asyncio.to_thread(channel.call, service, method, None)
    assert type(caught.value) is kind
    if isinstance(caught.value, DatabaseBusy):
        assert caught.value.kind == "OperationalError"
    assert await asyncio.to_thread(channel.call, "echo", "echo", "still there") == "still there"


async def test_an_answer_beyond_the_frame_is_refused_in_words_and_the_channel_lives(
    workshop: Workshop,
) -> None:
    small = await workshop.channel_to({"echo": Echo()}, limit_bytes=1024)
    with pytest.raises(FrameError, match=r"limits\.frame_bytes = 1024"):
        await asyncio.to_thread(small.call, "echo", "echo", b"x" * 1015)
    with pytest.raises(FrameError, match="nothing was sent"):
        await asyncio.to_thread(small.call, "echo", "echo", b"x" * 2000)
    assert await asyncio.to_thread(small.call, "echo", "echo", 1) == 1


def test_no_exception_of_ours_loses_its_name_on_the_wire() -> None:
    for name in dir(errors):
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, PenstockError) and kind is not errors.TopologyMismatch:
            refused = wire.refusal(1, kind("words"), limit_bytes=1024)
            assert type(wire.exception(refused)) is kind
            assert str(wire.exception(refused)) == "words"


async def test_a_dead_workers_calls_are_cancelled_and_every_service_forgets_it(workshop: Workshop) -> None:
    echo, other = Echo(), Echo()
    sock = await workshop.socket_to({"echo": echo, "other": other}, "slot 3")
    call = wire.Call(1, "echo", "forever", Raw(wire.encode(None)))
    sock.sendall(encode_frame(wire.encode(call), limit_bytes=LIMIT_BYTES))
    await echo.called.wait()
    sock.close()
    assert await workshop.servers[0].eof is None
    await workshop.servers[0].wait_calls_forgotten()
    assert echo.cancelled.is_set()
    assert (echo.forgotten, other.forgotten) == (["slot 3"], ["slot 3"])


async def test_a_service_that_fails_to_forget_does_not_keep_the_next_from_it(workshop: Workshop) -> None:
    class Forgetful(Echo):
        def forget(self, caller: Caller) -> None:  # noqa: ARG002
            msg = "a bug"
            raise RuntimeError(msg)

    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    before, after = Echo(), Echo()
    sock = await workshop.socket_to({"a": before, "b": Forgetful(), "c": after}, "slot 3")
    sock.close()
    await workshop.servers[0].eof
    assert (before.forgotten, after.forgotten) == (["slot 3"], ["slot 3"])
    assert [str(fault) for fault in faults] == ["a bug"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\xff\xff\xff\xff",
        encode_frame(b"\xc1", limit_bytes=9),
        b"\x01\0\0\0\x01\x90",
    ],
)
async def test_rubbish_ends_the_channel_with_its_fault(workshop: Workshop, rubbish: bytes) -> None:
    echo = Echo()
    sock = await workshop.socket_to({"echo": echo}, "slot 3")
    with closing(sock):
        sock.sendall(rubbish)
        fault = await workshop.servers[0].eof
        assert isinstance(fault, FrameError | msgspec.DecodeError)
        assert echo.forgotten == ["slot 3"]
        sock.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""


async def test_a_closed_reactor_is_told_to_whoever_calls_or_waits(workshop: Workshop) -> None:
    echo = Echo()
    channel = await workshop.channel_to({"echo": echo})
    waiting: asyncio.Task[object] = asyncio.create_task(
        asyncio.to_thread(channel.call, "echo", "forever", None)
    )
    await echo.called.wait()
    workshop.servers[0].close()
    with pytest.raises(ChannelClosed, match="handed out again"):
        await waiting
    with pytest.raises(ChannelClosed, match="handed out again"):
        await asyncio.to_thread(channel.call, "echo", "echo", 1)


async def test_closing_the_workers_end_wakes_its_waiting_thread(workshop: Workshop) -> None:
    echo = Echo()
    channel = await workshop.channel_to({"echo": echo})
    waiting: asyncio.Task[object] = asyncio.create_task(
        asyncio.to_thread(channel.call, "echo", "forever", None)
    )
    await echo.called.wait()
    channel.close()
    channel.close()
    with pytest.raises(ChannelClosed):
        await waiting


async def test_threads_of_one_worker_get_each_their_own_answers_while_it_tells_and_logs() -> None:
    told: list[tuple[int, Outcome]] = []
    lines: list[str] = []
    ours, theirs = socket.socketpair()
    server = await ChannelServer.start(
        ours,
        {"echo": Echo()},
        Caller("slot 1"),
        limit_bytes=LIMIT_BYTES,
        on_ended=lambda ended: told.append((ended.index, ended.outcome)),
        on_line=lambda line: lines.append(line.event),
    )
    channel = Channel(theirs, limit_bytes=LIMIT_BYTES)
    outcome = Raised(Failure("ValueError", "no"))

    def ask(name: str) -> None:
        for number in range(200):
            assert channel.call("echo", "echo", [name, number]) == [name, number]
            channel.line("info", f"{name} {number}", {})

    await asyncio.gather(*(asyncio.to_thread(ask, name) for name in "abcd"))
    await asyncio.to_thread(channel.ended, 1, 2, outcome)
    channel.close()
    assert await server.eof is None
    assert told == [(2, outcome)]
    assert sorted(lines) == sorted(f"{name} {number}" for name in "abcd" for number in range(200))


class LoopThread:
    """A loop in another thread, so that this one may be interrupted by signals, as a worker's main thread is."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def serve(self, sock: socket.socket, services: dict[str, Any]) -> None:
        async def start() -> None:
            self._server = await ChannelServer.start(
                sock, services, Caller("slot 1"), limit_bytes=LIMIT_BYTES, on_ended=print, on_line=print
            )

        asyncio.run_coroutine_threadsafe(start(), self.loop).result()

    def close(self) -> None:
        async def end() -> None:
            await self._server.eof
            await self._server.wait_calls_forgotten()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def alarm() -> Iterator[SoftDeadline]:
    with soft_deadline.installed() as installed:
        yield installed


@pytest.fixture
def there() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


def test_a_soft_deadline_at_any_moment_leaves_the_stream_whole(
    alarm: SoftDeadline, there: LoopThread
) -> None:
    ours, theirs = socket.socketpair()
    there.serve(ours, {"echo": Echo()})
    rng = random.Random(11)
    typical_s, cut = 0.001, 0
    with closing(Channel(theirs, limit_bytes=LIMIT_BYTES, shield=alarm.shield)) as channel:
        for number in range(400):
            # Long answers, cut while they are being read: that is where bytes could be lost.
            payload = [number, "x" * rng.choice([0, 300_000, 900_000])]
            began_s = time.perf_counter()
            try:
                try:
                    alarm.arm(max(1e-5, rng.uniform(0.2, 1.3) * typical_s))
                    assert channel.call("echo", "echo", payload) == payload
                finally:
                    alarm.disarm()
            except DeadlineExceeded:
                cut += 1
                # On a machine that has become slower all would be cut, and none would say how long it takes.
                typical_s *= 1.1
            else:
                typical_s += 0.2 * (time.perf_counter() - began_s - typical_s)
        assert channel.call("echo", "echo", "the end") == "the end"
    assert 50 < cut < 400
