"""`penstock dead`: the letters of a dead-letter queue, and the way back for them.

A letter leaves its queue only after its copy is confirmed elsewhere, or when somebody says drop; what is merely
looked at returns to its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import typer

from penstock.app import header_names
from penstock.buses.connecting import connected
from penstock.buses.contract import Bus
from penstock.cli.exits import Exit
from penstock.cli.progress import showing
from penstock.cli.shown import show_pairs, show_table, show_text
from penstock.cli.words import fail
from penstock.config import Settings
from penstock.dead.choice import Choice
from penstock.dead.letter import Letter
from penstock.dead.letters import forget_all
from penstock.dead.passes import Task, find, holding, look
from penstock.dead.replaying import Replaying
from penstock.errors import BusUnavailable, PublishError

SHOWN_BODY_BYTES: Final = 16 * 1024
#: Headers that have a place of their own in what `show` writes.
_SHOWN_APART: Final = (header_names.TRACEBACK, header_names.CRASH_STACK, header_names.PAST)


def show_list(queue: str, settings: Settings, choice: Choice, *, limit: int) -> Exit:
    """Show the oldest letters that fit. Raises `BusError` when there is no such queue."""

    async def work(bus: Bus) -> Exit:
        origin, count = await find(bus, queue)
        rows = await look(bus, origin, count, choice, limit=limit, keep=_row)
        columns = ("id", "reason", "exception", "attempts", "failed (UTC)")
        if rows:
            narrow = {"exception": 18, "failed (UTC)": 10}
            show_table(f"Dead letters of {origin}", columns, rows, whole=("id",), narrow=narrow)
        if rows and choice.is_everything and count > len(rows):
            fail(f"the oldest {len(rows):,} of {count:,} are shown; --limit shows more")
        elif len(rows) == limit and not choice.is_everything:
            fail(f"the oldest {limit:,} that match are shown; --limit shows more")
        elif not rows:
            return _nothing_found(origin, count, choice, exit_none=Exit.OK)
        return Exit.OK

    return _on_bus(settings, work)


def show_one(queue: str, message_id: str, settings: Settings, *, body_only: bool) -> Exit:
    """Show a letter whole, or write its body to stdout as it is. `NO` when there is none with this id."""

    async def work(bus: Bus) -> Exit:
        origin, count = await find(bus, queue)
        last: Letter | None = None
        same = 0
        async with holding(bus, origin, count) as letters:
            async for letter in letters:
                if letter.id == message_id:
                    last, same = letter, same + 1
                letter.release()
        if last is None:
            return _nothing_found(origin, count, Choice(id=message_id))
        if body_only:
            sys.stdout.buffer.write(last.delivery.body)
            sys.stdout.buffer.flush()
        else:
            _show(last)
        if same > 1:
            fail(f"{same} dead letters have this id; the last one is shown")
        return Exit.OK

    return _on_bus(settings, work)


def replay(
    queue: str, settings: Settings, choice: Choice, *, rate: float | None = None, limit: int | None = None
) -> Exit:
    """Publish letters to their queue again, then forget them. Raises the first `PublishError`."""

    async def work(bus: Bus) -> Exit:
        origin, count = await find(bus, queue)
        replaying = Replaying(bus, timeout_s=settings.bus.confirm_timeout_s, rate=rate)
        task = Task(bus, origin, count, choice, replaying.send, limit)
        replaying.drive(task)
        stays = "the others are still dead letters"
        try:
            error = await _with_bar(task, f"replaying {origin}", settings)
        except asyncio.CancelledError:
            fail(f"interrupted: {_told(replaying.sent)}; {stays}; the same command goes on")
            return Exit.INTERRUPTED
        except BusUnavailable:
            fail(f"stopped: {_told(replaying.sent)}; {stays}; the same command goes on")
            raise
        if error is not None:
            fail(f"stopped: {_told(replaying.sent)}; {stays}")
            raise error
        if not replaying.sent:
            return _nothing_found(origin, count, choice)
        typer.echo(f"replayed: {_told(replaying.sent)}")
        return Exit.OK

    return _on_bus(settings, work)


def drop(
    queue: str, settings: Settings, choice: Choice, *, is_confirmed: bool, limit: int | None = None
) -> Exit:
    """Forget letters; more than one id only after a yes."""
    dropped = 0

    async def work(bus: Bus) -> Exit:
        nonlocal dropped

        async def forget(letters: Sequence[Letter]) -> PublishError | None:
            nonlocal dropped
            dropped += len(letters)
            return await forget_all(bus, letters)

        origin, count = await find(bus, queue)
        if choice.id is None and count and not is_confirmed:
            fitting = await _count_fitting(bus, origin, count, choice, limit)
            if not fitting:
                return _nothing_found(origin, count, choice)
            if not sys.stdin.isatty():
                fail(
                    f"{_letters(fitting)} of {origin} would be gone for good: say --yes; nothing was dropped"
                )
                return Exit.USAGE
            if not typer.confirm(f"Drop {_letters(fitting)} of {origin} for good?"):
                fail("nothing was dropped")
                return Exit.NO
        try:
            task = Task(bus, origin, count, choice, forget, limit)
            await _with_bar(task, f"dropping from {origin}", settings)
        except asyncio.CancelledError:
            fail(f"interrupted: {_letters(dropped)} dropped; the others are still there")
            return Exit.INTERRUPTED
        if not dropped:
            return _nothing_found(origin, count, choice)
        typer.echo(f"dropped: {_letters(dropped)} of {origin}")
        return Exit.OK

    return _on_bus(settings, work)


async def _with_bar(task: Task, title: str, settings: Settings) -> PublishError | None:
    # Half: what is held longer comes again, and the broker closes the AMQP channel for it.
    task.pass_s = settings.bus.consumer_timeout_s / 2
    with showing(title, min(task.count, task.limit or task.count)) as show:
        by_fitting = task.limit is not None

        def progress(looked_at: int, fitted: int) -> None:
            show(fitted if by_fitting else looked_at, fitted)

        task.on_progress = progress
        return await task.run()


async def _count_fitting(bus: Bus, origin: str, count: int, choice: Choice, limit: int | None) -> int:
    most = count if limit is None else min(count, limit)
    if choice.is_everything:
        return most
    return len(await look(bus, origin, count, choice, limit=most, keep=bool))


def _on_bus(settings: Settings, work: Callable[[Bus], Coroutine[Any, Any, Exit]]) -> Exit:
    async def connect_and_work() -> Exit:
        async with connected(settings.bus) as bus:
            return await work(bus)

    return asyncio.run(connect_and_work())


def _row(letter: Letter) -> tuple[str, ...]:
    exception = letter.says(header_names.EXCEPTION)
    return (
        letter.id,
        # The exception has a column of its own.
        letter.reason.removeprefix(f"the handler raised {exception}: ") if exception else letter.reason,
        exception,
        letter.says(header_names.ATTEMPTS),
        letter.when,
    )


def _show(letter: Letter) -> None:
    delivery = letter.delivery
    own = letter.own_headers()
    properties = {
        "message id": delivery.message_id or f"none; {letter.id} stands for it",
        "content type": delivery.content_type,
        "content encoding": delivery.content_encoding,
        "type": delivery.type,
        "correlation id": delivery.correlation_id,
        "reply to": delivery.reply_to,
    }
    ours = {
        name: value
        for name, value in delivery.headers.items()
        if name not in own and name not in _SHOWN_APART
    }
    for title, table in (("", properties), ("Why it is here", ours), ("Its own headers", own)):
        rows = [(f"{name}", str(value)) for name, value in table.items() if value is not None]
        if rows:
            show_pairs(title, rows)
    past = [(str(end.get("failed_at")), _in_words(end)) for end in letter.past()]
    if past:
        show_pairs("What it went through before", past)
    for title, header in (
        ("Traceback", header_names.TRACEBACK),
        ("Stack of its worker", header_names.CRASH_STACK),
    ):
        trace = letter.says(header)
        if trace:
            show_text(f"{trace.rstrip()}\n", title=title)
    show_text(letter.body_text(SHOWN_BODY_BYTES), title=f"Body, {len(delivery.body):,} bytes")


def _nothing_found(origin: str, count: int, choice: Choice, *, exit_none: Exit = Exit.NO) -> Exit:
    if not count:
        fail(f"queue {origin!r} has no dead letters")
        return Exit.NO if choice.id is not None else Exit.OK
    if choice.id is not None:
        fail(
            f"no dead letter of {origin!r} has the id {choice.id!r}; `penstock dead list {origin}` shows them"
        )
        return Exit.NO
    fail(f"none of the {_letters(count)} of {origin!r} matches")
    return exit_none


def _told(sent: Counter[str]) -> str:
    return ", ".join(f"{_letters(count)} to {where}" for where, count in sent.items()) or "none was sent"


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"


def _in_words(end: dict[str, Any]) -> str:
    counts = ", ".join(f"{end[name]} {name}" for name in ("attempts", "crashes") if end.get(name))
    return f"{end.get('reason')} ({counts}; replayed {end.get('replayed_at')})"
