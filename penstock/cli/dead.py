"""`penstock dead`: the letters of a dead-letter queue, and the way back for them.

A letter leaves its queue only after its copy is confirmed elsewhere, or when somebody says drop; what is merely
looked at returns to its place.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import typer

from penstock.app import header_names
from penstock.buses.contract import Bus
from penstock.cli.connecting import connected
from penstock.cli.exits import Exit
from penstock.cli.letters import Letter
from penstock.cli.progress import showing
from penstock.cli.shown import show_pairs, show_table, show_text
from penstock.cli.words import fail
from penstock.config import Settings
from penstock.errors import BusError, PublishError

#: Letters held at a time while all are replayed or dropped.
ROUND: Final = 500
#: Letters looked through for an id; they are all held meanwhile.
SEARCHED: Final = 100_000
SHOWN_BODY_BYTES: Final = 16 * 1024
_SUFFIX: Final = ".dead"


def show_list(queue: str, settings: Settings, *, limit: int) -> Exit:
    """Show the oldest letters. Raises `BusError` when there is no such queue."""

    async def look(bus: Bus) -> Exit:
        origin, count = await _find(bus, queue)
        async with _holding(bus, origin, limit) as letters:
            shown = [letter async for letter in letters]
        rows = [_row(letter) for letter in shown]
        columns = ("id", "reason", "exception", "attempts", "failed (UTC)")
        if rows:
            narrow = {"exception": 18, "failed (UTC)": 10}
            show_table(f"Dead letters of {origin}", columns, rows, whole=("id",), narrow=narrow)
        if count > len(shown):
            fail(f"the oldest {len(shown):,} of {count:,} are shown; --limit shows more")
        elif not rows:
            fail(f"queue {origin!r} has no dead letters")
        return Exit.OK

    return _on_bus(settings, look)


def show_one(queue: str, message_id: str, settings: Settings, *, body_only: bool) -> Exit:
    """Show a letter whole, or write its body to stdout as it is. `NO` when there is none with this id."""

    async def look(bus: Bus) -> Exit:
        origin, _ = await _find(bus, queue)
        async with _holding(bus, origin, SEARCHED) as letters:
            found = [letter async for letter in letters if letter.id == message_id]
        if not found:
            return _not_found(origin, message_id)
        if body_only:
            sys.stdout.buffer.write(found[-1].delivery.body)
            sys.stdout.buffer.flush()
        else:
            _show(found[-1])
        if len(found) > 1:
            fail(f"{len(found)} dead letters have this id; the last one is shown")
        return Exit.OK

    return _on_bus(settings, look)


def replay(queue: str, message_id: str | None, settings: Settings) -> Exit:
    """Publish letters to their queue again, then forget them. Raises the first `PublishError`."""
    timeout_s = settings.bus.confirm_timeout_s
    sent: Counter[str] = Counter()

    async def send(bus: Bus, letters: Sequence[Letter]) -> PublishError | None:
        errors = await bus.publish([letter.replayed() for letter in letters], timeout_s=timeout_s)
        for letter, error in zip(letters, errors, strict=True):
            # Confirmed first: where loss and duplication compete, duplication wins.
            if error is None:
                letter.delivery.settler.ack(letter.delivery.tag)
                sent[letter.destination] += 1
        await bus.flush()
        return next((error for error in errors if error is not None), None)

    async def work(bus: Bus) -> Exit:
        origin, count = await _find(bus, queue)
        try:
            error = await _each_round(_Chosen(bus, origin, count, message_id), f"replaying {origin}", send)
        except asyncio.CancelledError:
            fail(f"interrupted: {_told(sent)}; the others are still dead letters")
            return Exit.INTERRUPTED
        if error is not None:
            fail(f"stopped: {_told(sent)}; the others are still dead letters")
            raise error
        if not sent:
            return _not_found(origin, message_id)
        typer.echo(f"replayed: {_told(sent)}")
        return Exit.OK

    return _on_bus(settings, work)


def drop(queue: str, message_id: str | None, settings: Settings, *, is_confirmed: bool) -> Exit:
    """Forget letters; all of them only after a yes."""
    dropped = 0

    async def forget(bus: Bus, letters: Sequence[Letter]) -> PublishError | None:
        nonlocal dropped
        for letter in letters:
            letter.delivery.settler.ack(letter.delivery.tag)
        await bus.flush()
        dropped += len(letters)
        return None

    async def work(bus: Bus) -> Exit:
        origin, count = await _find(bus, queue)
        if message_id is None and count and not is_confirmed:
            if not sys.stdin.isatty():
                fail(f"{_letters(count)} of {origin} would be gone for good: say --yes; nothing was dropped")
                return Exit.USAGE
            if not typer.confirm(f"Drop {_letters(count)} of {origin} for good?"):
                fail("nothing was dropped")
                return Exit.NO
        try:
            await _each_round(_Chosen(bus, origin, count, message_id), f"dropping from {origin}", forget)
        except asyncio.CancelledError:
            fail(f"interrupted: {_letters(dropped)} dropped; the others are still there")
            return Exit.INTERRUPTED
        if not dropped:
            return _not_found(origin, message_id)
        typer.echo(f"dropped: {_letters(dropped)} of {origin}")
        return Exit.OK

    return _on_bus(settings, work)


Treat = Callable[[Bus, Sequence[Letter]], Coroutine[Any, Any, PublishError | None]]


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Which letters: all that were there at the start, or those with one id."""

    bus: Bus
    origin: str
    count: int
    message_id: str | None


async def _each_round(chosen: _Chosen, title: str, treat: Treat) -> PublishError | None:
    """Treat letters round by round; returns the first refusal, which ends it.

    Not more than were there at the start: what fails again meanwhile comes in at the end, and would go round for ever.
    """
    bus, origin = chosen.bus, chosen.origin
    if chosen.message_id is not None:
        async with _holding(bus, origin, SEARCHED) as letters:
            found = [letter async for letter in letters if letter.id == chosen.message_id]
            return await treat(bus, found) if found else None
    done = 0
    with showing(title, chosen.count) as show:
        while done < chosen.count:
            async with _holding(bus, origin, min(ROUND, chosen.count - done)) as letters:
                taken = [letter async for letter in letters]
                if not taken:
                    # Somebody else took the rest.
                    return None
                error = await treat(bus, taken)
            if error is not None:
                return error
            done += len(taken)
            show(done, done)
    return None


@asynccontextmanager
async def _holding(bus: Bus, origin: str, limit: int) -> AsyncIterator[AsyncIterator[Letter]]:
    async with bus.hold(origin + _SUFFIX, limit=limit) as deliveries:
        yield (Letter(delivery, origin) async for delivery in deliveries)


async def _find(bus: Bus, queue: str) -> tuple[str, int]:
    """The queue that letters came from, and how many there are; the dead-letter queue's own name is understood, too."""
    for origin in (queue, queue.removesuffix(_SUFFIX)):
        count = await bus.depth(origin + _SUFFIX)
        if count is not None:
            return origin, count
    raise BusError(
        f"there is no dead-letter queue {queue + _SUFFIX!r} on this bus; a handler's start declares it. "
        "Look for a typing error in the name, or for another bus in the settings"
    )


def _on_bus(settings: Settings, work: Callable[[Bus], Coroutine[Any, Any, Exit]]) -> Exit:
    async def connect_and_work() -> Exit:
        async with connected(settings) as bus:
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
        if name not in own and name != header_names.TRACEBACK
    }
    for title, table in (("", properties), ("Why it is here", ours), ("Its own headers", own)):
        rows = [(f"{name}", str(value)) for name, value in table.items() if value is not None]
        if rows:
            show_pairs(title, rows)
    trace = letter.says(header_names.TRACEBACK)
    if trace:
        show_text(f"{trace.rstrip()}\n", title="Traceback")
    show_text(letter.body_text(SHOWN_BODY_BYTES), title=f"Body, {len(delivery.body):,} bytes")


def _not_found(origin: str, message_id: str | None) -> Exit:
    if message_id is None:
        fail(f"queue {origin!r} has no dead letters")
        return Exit.OK
    fail(f"no dead letter of {origin!r} has the id {message_id!r}; `penstock dead list {origin}` shows them")
    return Exit.NO


def _told(sent: Counter[str]) -> str:
    return ", ".join(f"{_letters(count)} to {where}" for where, count in sent.items()) or "none was sent"


def _letters(count: int) -> str:
    return "1 dead letter" if count == 1 else f"{count:,} dead letters"
