"""`penstock publish`: one message, or a file of them, each confirmed before it is called published."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer
from msgspec.structs import replace

from penstock.app.decode import check_json
from penstock.app.messages import Outgoing
from penstock.app.options import Options
from penstock.app.payloads import JSON, make_outgoing
from penstock.buses.connecting import connected
from penstock.cli.exits import Exit
from penstock.config import Settings
from penstock.errors import PayloadError

STDIN: Final = "-"
_SHOWN_CHARS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line asked for."""

    queue: str | None
    payload: str | None
    file: Path | None
    from_line: int
    id: str | None
    headers: dict[str, str]
    exchange: str | None
    routing_key: str | None
    delay_s: float | None
    is_raw: bool

    @classmethod
    def from_words(
        cls,
        words: Sequence[str],
        *,
        file: Path | None,
        exchange: str | None,
        routing_key: str | None,
        headers: Sequence[str],
        **rest: Any,
    ) -> Request:
        """Tell queue and payload apart. Raises `typer.BadParameter` in words when there are too few or too many."""
        left = list(words)
        queue = left.pop(0) if exchange is None and left else None
        payload = left.pop(0) if file is None and left else None
        if exchange is None and queue is None:
            raise typer.BadParameter("name the queue: penstock publish QUEUE PAYLOAD")
        if exchange is None and routing_key is not None:
            raise typer.BadParameter("--routing-key goes with --exchange; a queue is reached by its own name")
        if file is None and payload is None:
            raise typer.BadParameter("the payload is missing: JSON text, - for stdin, or --file FILE")
        if left:
            why = "with --file the payloads are in the file" if file else "quote it: '{\"id\": 1}'"
            raise typer.BadParameter(f"there is more than a queue and a payload ({left[0]!r}); {why}")
        return cls(
            queue=queue,
            payload=payload,
            file=file,
            exchange=exchange,
            routing_key=routing_key,
            headers=dict(_name_and_value(header) for header in headers),
            **rest,
        )

    @property
    def destination(self) -> str:
        """Where it goes, in words."""
        if self.exchange is None:
            return f"queue {self.queue!r}"
        return f"exchange {self.exchange!r} with routing key {self.routing_key or ''!r}"

    def outgoing(self, text: str, message_id: str | None) -> Outgoing:
        """The message for one payload. Raises `PayloadError` when it is not JSON, or no bus could carry it."""
        if not self.is_raw:
            _refuse_unreadable(text)
        options: Options = {"id": message_id, "headers": self.headers, "delay": self.delay_s}
        if self.exchange is not None:
            options |= {"exchange": self.exchange, "routing_key": self.routing_key}
            message = make_outgoing(text, **options)
        else:
            message = make_outgoing(self.queue, text, **options)
        # The text as it was written: reading and writing it again would change numbers.
        return message if self.is_raw else replace(message, content_type=JSON)


def publish(request: Request, settings: Settings) -> Exit:
    """Publish and wait for every confirm.

    Raises `PayloadError`, `BusUnavailable`, or the `PublishError` of a message.
    """
    if request.file is not None:
        from penstock.cli.publish_file import publish_file

        return asyncio.run(publish_file(request, request.file, settings))
    text = sys.stdin.read() if request.payload == STDIN else request.payload or ""
    try:
        message = request.outgoing(text, request.id)
    except PayloadError as error:
        hint = (
            ". Mind the shell: a JSON text is quoted twice, '\"text\"'; --raw publishes any text as it is"
            if isinstance(error.__cause__, ValueError)
            else ""
        )
        raise PayloadError(f"{error}; nothing was published{hint}") from error
    asyncio.run(_publish_one(message, settings))
    typer.echo(f"confirmed: {request.destination}, id {message.message_id}")
    return Exit.OK


async def _publish_one(message: Outgoing, settings: Settings) -> None:
    async with connected(settings.bus) as bus:
        (error,) = await bus.publish([message], timeout_s=settings.bus.confirm_timeout_s)
    if error is not None:
        raise error


def _refuse_unreadable(text: str) -> None:
    """Raises `PayloadError` for a text that a worker would not read either: it would become a dead letter."""
    try:
        check_json(text)
    except RecursionError as error:
        raise PayloadError("not usable JSON: nested too deeply") from error
    except ValueError as error:
        shown = text.strip()
        shown = shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]} …"
        raise PayloadError(f"not valid JSON: {shown!r} ({error})") from error


def _name_and_value(header: str) -> tuple[str, str]:
    name, equals, value = header.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--header {header!r}: write NAME=VALUE")
    return name, value
