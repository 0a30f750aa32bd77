"""Programs that share a bus with a test, and what starts them.

python -m tests.embedded.programs consume FILE LEASE_S   prints "got ID"; acks when told a line on stdin
python -m tests.embedded.programs work FILE LOG          consumes for ever: effect into LOG, then ack
python -m tests.embedded.programs echo FILE              publishes the time whenever told a line on stdin
python -m tests.embedded.programs name FILE              publishes the id that a line on stdin says, prints what came of it
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from penstock.app.messages import Outgoing
from penstock.app.queues import QueueDeclaration
from penstock.buses.contract import Delivery, Subscription
from penstock.buses.embedded import EmbeddedBus
from tests.embedded.section import section_of

WORK = QueueDeclaration(name="work")


@asynccontextmanager
async def started(
    *args: object, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One of the programs above, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.embedded.programs",
        *map(str, args),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def read_line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


def tell(process: asyncio.subprocess.Process, line: str = "") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def lines_told() -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        yield line.decode().strip()


async def consume(file: str, lease_s: str) -> None:
    bus = EmbeddedBus(section_of(file, lease_s=float(lease_s)))
    deliveries: list[Delivery] = []

    def sink(delivery: Delivery) -> None:
        deliveries.append(delivery)
        say(f"got {delivery.message_id}")

    await bus.connect()
    await bus.consume([Subscription(WORK, 10)], sink)
    async for _ in lines_told():
        for delivery in deliveries:
            delivery.settler.ack(delivery.tag)
        await bus.flush()
        say("acked, and the lease is " + ("gone" if deliveries[0].settler.is_gone else "ours"))


async def work(file: str, log: str) -> None:
    bus = EmbeddedBus(section_of(file))
    effects = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def sink(delivery: Delivery) -> None:
        os.write(effects, f"{delivery.message_id} {delivery.delivery_count}\n".encode())
        delivery.settler.ack(delivery.tag)

    await bus.connect()
    await bus.consume([Subscription(WORK, 50)], sink)
    say("ready")
    await asyncio.Event().wait()


async def echo(file: str) -> None:
    bus = EmbeddedBus(section_of(file), free_floor_bytes=0)
    await bus.connect()
    say("ready")
    async for _ in lines_told():
        (answer,) = await bus.publish([Outgoing("work", str(time.monotonic()).encode())], timeout_s=10)
        assert answer is None, answer
    await bus.aclose()


async def name(file: str) -> None:
    bus = EmbeddedBus(section_of(file, lease_s=0.3), free_floor_bytes=0)
    await bus.connect()
    await bus.declare([WORK])
    say("ready")
    async for id_ in lines_told():
        (answer,) = await bus.publish([Outgoing("work", b"{}", message_id=id_)], timeout_s=10)
        say("confirmed" if answer is None else f"{type(answer).__name__}: {answer}")
    await bus.aclose()


def logged(log: Path) -> list[str]:
    """Whole lines of a log; the last one may be cut by a kill."""
    return log.read_text().split("\n")[:-1] if log.exists() else []


PROGRAMS = {"consume": consume, "work": work, "echo": echo, "name": name}

if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))  # type: ignore[operator]
