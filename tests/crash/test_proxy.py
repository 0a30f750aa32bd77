"""The proxy does what its faults are named after: else a service that survives it proves nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.crash.proxy import BOTH, LINGER_NOT, Proxy, Way


@asynccontextmanager
async def echo() -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy before a server that repeats what it hears, and what that server has heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                heard.append(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            heard.append(b"<reset>")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Proxy(f"amqp://guest:guest@127.0.0.1:{port}/x") as proxy:
            yield proxy, heard
    finally:
        server.close()


@asynccontextmanager
async def link_to(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    port = int(proxy.url.rpartition(":")[2].partition("/")[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until_reset(heard: list[bytes]) -> None:
    """The server notices in a turn of this very loop."""
    async with asyncio.timeout(5):
        while b"<reset>" not in heard:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


async def test_bytes_pass_and_the_url_keeps_its_login_and_path() -> None:
    async with echo() as (proxy, _), link_to(proxy) as (reader, writer):
        writer.write(b"hello")

        assert await reader.readexactly(5) == b"hello"
        assert proxy.url.startswith("amqp://guest:guest@127.0.0.1:")
        assert proxy.url.endswith("/x")


async def test_a_reset_is_a_reset_for_both_ends() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)

        proxy.reset()

        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await until_reset(heard)


async def test_a_reset_by_one_end_reaches_the_other() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        writer.write(b"hello")
        await reader.readexactly(5)
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)

        writer.transport.abort()

        await until_reset(heard)


async def test_a_stalled_link_loses_nothing() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        proxy.stall()
        writer.write(b"hello")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        assert heard == []

        proxy.heal()

        assert await reader.readexactly(5) == b"hello"


@pytest.mark.parametrize("ways", [BOTH, (Way.UP,), (Way.DOWN,)])
async def test_a_link_that_swallowed_stays_deaf_and_the_next_one_hears(ways: tuple[Way, ...]) -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        writer.write(b"a")
        await reader.readexactly(1)
        proxy.swallow(*ways)
        writer.write(b"b")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        assert (b"b" in heard) == (Way.UP not in ways)

        proxy.heal()

        writer.write(b"c")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        async with link_to(proxy) as (next_reader, next_writer):
            next_writer.write(b"d")
            assert await next_reader.readexactly(1) == b"d"


async def test_a_cut_comes_after_exactly_so_many_bytes() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        proxy.cut_after(Way.UP, 7)
        writer.write(b"hello")
        await reader.readexactly(5)

        writer.write(b"world")

        await proxy.wait_cut()
        await until_reset(heard)
        # What was on its way when the RST came may be gone.
        assert b"".join(heard[:-1]) in (b"hellowo", b"hello")


async def test_a_slow_link_is_slow_and_whole() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (reader, writer):
        proxy.slow(latency_s=0.01, slice_bytes=3)

        writer.write(b"0123456789")

        assert await reader.readexactly(10) == b"0123456789"
        assert len(heard) >= 4


async def test_nobody_connects_to_a_proxy_that_refuses() -> None:
    async with echo() as (proxy, _), link_to(proxy) as (reader, writer):
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            async with link_to(proxy):
                pass
        writer.write(b"stands")
        assert await reader.readexactly(6) == b"stands"

        await proxy.listen()

        async with link_to(proxy) as (next_reader, next_writer):
            next_writer.write(b"d")
            assert await next_reader.readexactly(1) == b"d"


async def test_whoever_is_hung_up_on_is_accepted_first_and_what_stands_stands() -> None:
    async with echo() as (proxy, heard), link_to(proxy) as (standing, writer):
        writer.write(b"a")
        assert await standing.read(10) == b"a"
        proxy.hang_up()
        async with link_to(proxy) as (reader, _):
            assert await reader.read(10) == b""
        writer.write(b"b")
        assert await standing.read(10) == b"b"
        proxy.heal()
        async with link_to(proxy) as (reader, again):
            again.write(b"c")
            assert await reader.read(10) == b"c"

    assert (proxy.hung_up, heard[:3]) == (1, [b"a", b"b", b"c"])
