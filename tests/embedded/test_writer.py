"""Group commit: many requests, one COMMIT; a failure costs whoever caused it."""

import asyncio
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.buses.embedded.writer import Ticket, Transaction, Writer
from penstock.errors import BusUnavailable


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    opened = Writer(path, prepare=lambda _: None, on_commit=lambda _: None)
    await opened.open()
    await execute(opened, "CREATE TABLE notes (text TEXT UNIQUE)")
    yield opened
    await opened.aclose()


async def execute(writer: Writer, statement: str) -> list[tuple[int]]:
    return await writer.run(lambda at: at.connection.execute(statement).fetchall())


def note(text: str, at: Transaction) -> str:
    at.connection.execute("INSERT INTO notes VALUES (?)", (text,))
    return text


def notes(path: Path) -> list[str]:
    """What a process that looks into the file sees."""
    with closing(sqlite3.connect(path)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


async def test_requests_that_wait_together_share_a_commit(writer: Writer, path: Path) -> None:
    statements: list[str] = []
    await writer.run(lambda at: at.connection.set_trace_callback(statements.append))

    answers = await asyncio.gather(*(writer.run(lambda at, n=n: note(f"{n}", at)) for n in range(100)))  # type: ignore[misc]

    assert answers == [f"{n}" for n in range(100)]
    assert notes(path) == answers
    # The first finds the thread idle and goes alone; the others gather behind it. One more ended the tracing's own.
    assert statements.count("COMMIT") == 3


async def test_an_answer_comes_after_its_commit(writer: Writer, path: Path) -> None:
    for n in range(20):
        await writer.run(lambda at, n=n: note(f"{n}", at))  # type: ignore[misc]

        assert notes(path)[-1] == f"{n}"


async def test_a_request_that_fails_costs_itself(writer: Writer, path: Path) -> None:
    def half(at: Transaction) -> None:
        note("half", at)
        at.touched.add(7)
        raise LookupError("stop")

    tickets: list[Ticket[Any]] = [
        writer.submit(lambda at: note("first", at)),
        writer.submit(half),
        writer.submit(lambda at: note("first", at)),
        writer.submit(lambda at: note("last", at)),
    ]
    ended = await asyncio.gather(*(ticket.answer for ticket in tickets), return_exceptions=True)

    assert ended[0] == "first"
    assert isinstance(ended[1], LookupError)
    assert isinstance(ended[2], sqlite3.IntegrityError)
    assert ended[3] == "last"
    assert notes(path) == ["first", "last"]
    assert writer.is_healthy


async def test_when_there_is_no_room_what_needs_none_goes_on(writer: Writer, path: Path) -> None:
    await writer.run(lambda at: note("old", at))
    ((pages,),) = await execute(writer, "PRAGMA page_count")
    await execute(writer, f"PRAGMA max_page_count = {pages + 2}")

    # Submitted together while the thread is busy, so that they share a transaction.
    tickets = [
        writer.submit(lambda _: "idle"),
        writer.submit(lambda at: note("x" * 1_000_000, at)[0]),
        writer.submit(lambda at: str(at.connection.execute("DELETE FROM notes").rowcount)),
    ]
    ended = await asyncio.gather(*(ticket.answer for ticket in tickets), return_exceptions=True)

    assert isinstance(ended[1], BusUnavailable)
    assert "full" in str(ended[1])
    assert (ended[0], ended[2]) == ("idle", "1")
    assert notes(path) == []


async def test_after_an_io_error_the_file_is_opened_anew(writer: Writer, path: Path) -> None:
    opened = [await writer.run(lambda at: at.connection)]

    with file_size_limited():
        (error,) = await asyncio.gather(
            writer.run(lambda at: note("x" * 1_000_000, at)), return_exceptions=True
        )

    assert isinstance(error, BusUnavailable)
    assert repr(writer) == f"<Writer {path} broken, 0 waiting>"
    opened.append(await writer.run(lambda at: at.connection))
    assert opened[0] is not opened[1]
    assert repr(writer) == f"<Writer {path} healthy, 0 waiting>"
    await writer.run(lambda at: note("afterwards", at))
    assert notes(path) == ["afterwards"]


async def test_a_request_that_gives_up_behind_a_lock_is_never_run(writer: Writer, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        impatient = writer.submit(lambda at: note("impatient", at))
        patient = writer.submit(lambda at: note("patient", at))

        assert impatient.withdraw()
        other.execute("COMMIT")

    assert await patient.answer == "patient"
    assert notes(path) == ["patient"]


async def test_work_that_has_begun_cannot_be_taken_back(writer: Writer, path: Path) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(at: Transaction) -> str:
        loop.call_soon_threadsafe(begun.set)
        return note("begun", at)

    ticket = writer.submit(work)
    await begun.wait()

    assert not ticket.withdraw()
    await writer.run(lambda _: None)
    assert notes(path) == ["begun"]


async def test_closing_finishes_what_waits_and_refuses_what_comes(writer: Writer, path: Path) -> None:
    tickets = [writer.submit(lambda at, n=n: note(f"{n}", at)) for n in range(10)]  # type: ignore[misc]

    await writer.aclose()
    await writer.aclose()

    assert [ticket.answer.result() for ticket in tickets] == [f"{n}" for n in range(10)]
    assert notes(path) == [f"{n}" for n in range(10)]
    with pytest.raises(BusUnavailable, match="closed"):
        await writer.run(lambda _: None)
    assert "closed" in repr(writer)


async def test_closing_behind_a_lock_ends(writer: Writer, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ticket = writer.submit(lambda at: note("late", at))

        async with asyncio.timeout(10):
            await writer.aclose()

    with pytest.raises(BusUnavailable, match="locked"):
        ticket.answer.result()


@contextmanager
def file_size_limited() -> Iterator[None]:
    """No file of this process grows beyond 64 KiB: SQLite gets an error from write()."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
