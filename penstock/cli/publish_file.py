"""A file of messages, one a line: published in batches, so that a stop can say to the line what is safe."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final
from uuid import uuid4

import typer

from penstock.app.messages import Outgoing
from penstock.buses.connecting import connected
from penstock.buses.contract import Bus
from penstock.cli.exits import Exit, exit_of
from penstock.cli.lines import Lines, LongLine, Numbered
from penstock.cli.progress import showing
from penstock.cli.publish import Request
from penstock.cli.words import fail
from penstock.config import Settings
from penstock.errors import PayloadError, PenstockError, PublishError

#: Messages that are on their way at once: enough to fill the pipe, few enough to send again.
BATCH: Final = 500


class _Stopped(Exception):  # noqa: N818 - an event, not an error of ours
    """Ends the file early: which line and why."""

    def __init__(self, words: str, code: Exit) -> None:
        super().__init__(words)
        self.code = code


async def publish_file(request: Request, path: Path, settings: Settings) -> Exit:
    """Publish every line; the first one that cannot be stops it, in words that say how to go on.

    Raises `ConfigurationError` when the file cannot be read, `BusUnavailable`.
    """
    lines = Lines(path, limit_bytes=settings.limits.body_bytes)
    publisher = _Publisher(request, path, settings)
    try:
        async with connected(settings.bus) as bus:
            with showing(str(path), lines.size_bytes) as show:
                async for chunk in lines.chunks():
                    await publisher.publish(bus, chunk)
                    show(publisher.read_bytes, publisher.confirmed)
    except _Stopped as stopped:
        fail(publisher.how_to_go_on(str(stopped)))
        return stopped.code
    except LongLine as error:
        fail(publisher.how_to_go_on(f"line {error.number} of {path}: {error}"))
        return Exit.CONFIGURATION
    except OSError as error:
        fail(publisher.how_to_go_on(f"{path} cannot be read on: {error}"))
        return Exit.CONFIGURATION
    except asyncio.CancelledError:
        fail(publisher.how_to_go_on("interrupted"))
        return Exit.INTERRUPTED
    typer.echo(
        f"confirmed: {_messages(publisher.confirmed)} to {request.destination}, ids {publisher.ids}-LINE"
    )
    return Exit.OK


class _Publisher:
    """Publishes chunks of lines, and knows how far it got; only whole batches move its position."""

    def __init__(self, request: Request, path: Path, settings: Settings) -> None:
        self.ids = request.id or uuid4().hex[:12]
        self.line = request.from_line
        """Every line before it is confirmed, or was not asked for."""
        self.confirmed = 0
        self.confirmed_beyond = 0
        """Confirmed behind a line that was not."""
        self.read_bytes = 0
        self._request = request
        self._path = path
        self._timeout_s = settings.bus.confirm_timeout_s

    async def publish(self, bus: Bus, chunk: list[Numbered]) -> None:
        """Publish a chunk. Raises `_Stopped` at the first line that is no message, or was not confirmed."""
        batch: list[tuple[int, Outgoing]] = []
        for number, raw in chunk:
            if number < self._request.from_line or not raw.strip():
                continue
            try:
                batch.append((number, self._message(number, raw)))
            except PayloadError as error:
                # What stands before the bad line is good, and goes out first.
                await self._publish_batch(bus, batch)
                self.line = number
                raise _Stopped(f"line {number} of {self._path}: {error}", exit_of(error)) from error
            if len(batch) == BATCH:
                await self._publish_batch(bus, batch)
                batch.clear()
        await self._publish_batch(bus, batch)
        self.line = max(self.line, chunk[-1][0] + 1)
        self.read_bytes += sum(len(raw) + 1 for _, raw in chunk)

    def how_to_go_on(self, why: str) -> str:
        """Why it stopped, what is safe, and the command that goes on from there."""
        confirmed = "is confirmed" if self.confirmed == 1 else "are confirmed"
        beyond = (
            f" {_messages(self.confirmed_beyond)} behind it, too; they go out again with the same ids."
            if self.confirmed_beyond
            else ""
        )
        return (
            f"{why}\n{_messages(self.confirmed)} before line {self.line} {confirmed}.{beyond}\n"
            f"To go on from there: the same command with --from-line {self.line} --id {self.ids} "
            "(the same ids make a repeat recognisable)"
        )

    def _message(self, number: int, raw: bytes) -> Outgoing:
        try:
            # Editors on some systems put a mark before the first character.
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise PayloadError(f"not UTF-8 text: {error}") from error
        return self._request.outgoing(text, f"{self.ids}-{number}")

    async def _publish_batch(self, bus: Bus, batch: list[tuple[int, Outgoing]]) -> None:
        if not batch:
            return
        errors: list[PublishError | None] = await bus.publish(
            [message for _, message in batch], timeout_s=self._timeout_s
        )
        first: tuple[int, PenstockError] | None = None
        for (number, _), error in zip(batch, errors, strict=True):
            if error is not None:
                first = first or (number, error)
            elif first is None:
                self.confirmed += 1
            else:
                self.confirmed_beyond += 1
        if first is None:
            self.line = batch[-1][0] + 1
            return
        self.line = first[0]
        raise _Stopped(f"line {first[0]} was not confirmed: {first[1]}", exit_of(first[1])) from first[1]


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count:,} messages"
