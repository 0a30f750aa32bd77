"""The log as it leaves the process: whatever a line holds, it comes out whole and harms nobody."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from aiormq.exceptions import AMQPConnectionError

from penstock.channels.wire import Line
from penstock.config.service import ServiceSection
from penstock.reactor.log import configure_logging, write_worker_line

ReadLog = Callable[[], str]
StartLog = Callable[[Literal["console", "json"]], ReadLog]


@pytest.fixture
def start_log() -> Iterator[StartLog]:
    """Starts the log on a pipe; what it returns closes the log and reads all of it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def start(log_format: Literal["console", "json"]) -> ReadLog:
        reading, writing = os.pipe()
        writer = configure_logging(ServiceSection(log_format=log_format, log_level="debug"), fd=writing)

        def read() -> str:
            writer.close()
            os.close(writing)
            with os.fdopen(reading, encoding="utf-8") as file:
                return file.read()

        return read

    yield start
    root.handlers[:] = handlers
    root.setLevel(level)


def only_line(text: str) -> dict[str, Any]:
    (line,) = text.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def refuse(text: str) -> None:
    raise ValueError(text)


@pytest.mark.parametrize("name", ["level", "event", "self", "timestamp"])
def test_a_field_named_like_the_logs_own_is_kept_beside_it(start_log: StartLog, name: str) -> None:
    read = start_log("json")

    write_worker_line(Line("warning", "tank is filling", {name: 3, "slot": "1"}))

    line = only_line(read())
    assert (line["event"], line["level"], line["slot"], line[f"{name}_"]) == (
        "tank is filling",
        "warning",
        "1",
        3,
    )


def test_a_field_named_like_a_loggers_parameter_is_a_field(start_log: StartLog) -> None:
    read = start_log("json")

    write_worker_line(Line("info", "100 % full", {"method_name": "GET", "number": 1, "args": "a"}))

    line = only_line(read())
    assert (line["event"], line["method_name"], line["number"], line["args"]) == ("100 % full", "GET", 1, "a")


@pytest.mark.parametrize("name", ["exception", "stack"])
def test_a_field_where_a_traceback_is_expected_may_be_anything(start_log: StartLog, name: str) -> None:
    read = start_log("console")

    write_worker_line(Line("info", "counted", {name: 5}))

    assert read().splitlines()[1] == "5"


@pytest.mark.parametrize(
    ("number", "name"), [(1, "debug"), (15, "debug"), (25, "info"), (45, "error"), (60, "critical")]
)
def test_a_level_between_the_standard_ones_is_the_one_below(
    start_log: StartLog, number: int, name: str
) -> None:
    read = start_log("json")
    library = logging.getLogger("tests.library")
    library.setLevel(1)

    library.log(number, "said")

    line = only_line(read())
    assert (line["event"], line["level"]) == ("said", name)


def test_a_call_that_cannot_be_formatted_is_told_and_never_raised(start_log: StartLog) -> None:
    read = start_log("json")

    logging.getLogger("tests.library").warning("took %d s", "long")

    line = only_line(read())
    assert (line["logger"], line["text"]) == ("tests.library", "took %d s")
    assert "TypeError" in line["error"]
    assert "test_log.py:" in line["where"]


def test_an_exceptions_text_moves_no_cursor_and_keeps_its_lines(start_log: StartLog) -> None:
    read = start_log("console")

    try:
        refuse("red \x1b[31m, eight bits \x9b2J\nsecond line")
    except ValueError:
        logging.getLogger("tests.library").exception("failed\nERROR forged")
    write_worker_line(Line("error", "worker", {"stack": "a \x1b[2J\n\tb", "\x1b[5m": "c"}))

    text = read()
    lines = text.splitlines()
    assert not {"\x1b", "\x9b"} & set(text)
    assert r"ValueError: red \x1b[31m, eight bits \x9b2J" in lines
    assert "second line" in lines
    assert r"failed\x0aERROR forged" in lines[0]
    assert lines[-2:] == [r"a \x1b[2J", "\tb"]


async def end_with(error: BaseException) -> None:
    raise error


def left_alone(error: BaseException) -> None:
    """A task that ends with this, and that nobody asks about."""

    async def leave() -> None:
        task = asyncio.create_task(end_with(error))
        await asyncio.wait((task,))
        del task
        gc.collect()

    asyncio.run(leave())


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_a_lost_connection_leaves_behind_is_a_line_and_no_traceback(
    start_log: StartLog, log_format: Literal["console", "json"]
) -> None:
    read = start_log(log_format)

    left_alone(AMQPConnectionError("the reader has gone"))
    logging.getLogger("aiormq.connection").warning(
        "Cancelling cause reader exited abnormally", exc_info=AMQPConnectionError("gone")
    )

    (line,) = read().splitlines()
    assert "what waited on a connection to the broker ended with it" in line
    assert "AMQPConnectionError: the reader has gone" in line


@pytest.mark.parametrize("error", [RuntimeError("mine"), ConnectionResetError("mine")])
def test_the_traceback_of_anybody_elses_task_stays(start_log: StartLog, error: BaseException) -> None:
    read = start_log("json")

    left_alone(error)

    line = only_line(read())
    assert line["event"].startswith("Task exception was never retrieved")
    assert "Traceback" in line["exception"]
