"""What a handler logs or prints travels whatever is in it, and never fails its message."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from enum import Enum, IntEnum
from typing import Any

import pytest
import structlog

from penstock.channels import wire
from penstock.channels.service import Caller
from penstock.channels.serving import ChannelServer
from penstock.channels.stub import MAX_LINE_CHARS, Channel
from penstock.errors import DeadlineExceeded
from penstock.workers.output import LogToChannel, PrintToChannel, structlog_processor

LIMIT_BYTES = 64 * 1024
FIELDS = {"slot": "1", "message_id": "m1"}


class Desk:
    """A worker's channel, and the lines that have come out at its end on the loop."""

    def __init__(self) -> None:
        self.channel: Channel
        self.lines: list[wire.Line] = []
        self.on_line: Callable[[wire.Line], None] = self.lines.append
        self._server: ChannelServer

    async def open(self) -> None:
        ours, theirs = socket.socketpair()
        self._server = await ChannelServer.start(
            ours,
            {},
            Caller("slot 1"),
            limit_bytes=LIMIT_BYTES,
            on_ended=lambda ended: pytest.fail(f"{ended}"),
            on_line=self._write,
        )
        self.channel = Channel(theirs, limit_bytes=LIMIT_BYTES)

    def _write(self, line: wire.Line) -> None:
        self.on_line(line)

    async def read(self) -> list[wire.Line]:
        """All lines, once the worker's end is closed; the stream was sound to its end."""
        self.channel.close()
        assert await self._server.eof is None
        return self.lines

    def logger(self) -> structlog.typing.FilteringBoundLogger:
        """What a handler finds as `ctx.log`."""
        logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
            None,
            processors=[structlog_processor(self.channel, lambda: dict(FIELDS))],
            wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        )
        return logger


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    await desk.open()
    yield desk
    await desk.read()


class Weekday(IntEnum):
    MONDAY = 1


class Colour(Enum):
    RED = object()


class Name(str):
    __slots__ = ()


class Unwilling:
    def __repr__(self) -> str:
        raise KeyError("no words")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (2**70, hex(2**70)),
        (-(2**63) - 1, hex(-(2**63) - 1)),
        (10**5000, hex(10**5000)),
        (2**64 - 1, 2**64 - 1),
        (True, True),
        (None, None),
        (1.5, 1.5),
        ("lone \ud800", r"lone \ud800"),
        (Name("orders"), "orders"),
        (Weekday.MONDAY, 1),
        ([1, "\udfff"], r"[1, '\udfff']"),
        (Unwilling(), "<Unwilling: its repr() raised KeyError>"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_field_may_be_anything(desk: Desk, value: object, arrives: object) -> None:
    desk.logger().info("said", n=value)

    (line,) = await desk.read()
    assert (line.level, line.event, line.fields) == ("info", "said", {**FIELDS, "n": arrives})


async def test_an_enum_of_no_plain_type_arrives_in_words(desk: Desk) -> None:
    desk.logger().info("said", colour=Colour.RED)

    (line,) = await desk.read()
    assert line.fields["colour"].startswith("<Colour.RED")


async def test_print_takes_any_text(desk: Desk) -> None:
    print("lone \udc80", file=PrintToChannel(desk.channel, lambda: dict(FIELDS), "info"))

    (line,) = await desk.read()
    assert line.event == r"lone \udc80"


async def test_a_line_beyond_the_frame_is_cut_and_its_first_fields_survive(desk: Desk) -> None:
    desk.logger().info("ä" * 100_000, body="ö" * LIMIT_BYTES, late="never")
    desk.logger().info("small", **{f"field {n}": n for n in range(20_000)})
    desk.logger().info("after")

    long, wide, after = await desk.read()
    assert long.event == "ä" * MAX_LINE_CHARS
    assert long.fields.items() >= FIELDS.items()
    assert set(long.fields["body"]) == {"ö"}
    assert wide.fields.items() >= {**FIELDS, "field 0": 0, "field 100": 100}.items()
    assert after.event == "after"


async def test_a_deadline_inside_a_repr_still_ends_the_handler(desk: Desk) -> None:
    class Slow:
        def __repr__(self) -> str:
            raise DeadlineExceeded("0.3 s")

    with pytest.raises(DeadlineExceeded):
        desk.logger().info("said", slow=Slow())


def library(desk: Desk) -> logging.Logger:
    logger = logging.Logger("tests.library")  # noqa: LOG001 - of this test alone, registered nowhere
    logger.addHandler(LogToChannel(desk.channel, lambda: dict(FIELDS)))
    return logger


@pytest.mark.parametrize(("number", "level"), [(5, "debug"), (25, "info"), (45, "error"), (99, "critical")])
async def test_a_level_of_ones_own_is_the_standard_one_below(desk: Desk, number: int, level: str) -> None:
    library(desk).log(number, "said")

    (line,) = await desk.read()
    assert (line.level, line.event, line.fields["logger"]) == (level, "said", "tests.library")


async def test_a_call_that_cannot_be_formatted_fails_no_message(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", PrintToChannel(desk.channel, lambda: dict(FIELDS), "warning"))

    library(desk).warning("took %d s", "long")

    lines = await desk.read()
    assert any("TypeError" in line.event for line in lines)
    assert any("took %d s" in line.event for line in lines)


async def test_a_line_that_cannot_be_written_costs_the_line_and_not_the_channel(desk: Desk) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    def refuse_first(line: wire.Line) -> None:
        if line.event == "first":
            raise TypeError("no such field")
        desk.lines.append(line)

    desk.on_line = refuse_first
    desk.logger().info("first")
    desk.logger().info("second")

    assert [line.event for line in await desk.read()] == ["second"]
    assert [str(context["exception"]) for context in told] == ["no such field"]
    assert "'first'" in told[0]["message"]
