"""From `Outgoing` messages to rows: routing, capping priorities, refusing what the file cannot take."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from penstock.app.messages import FRESH, Outgoing
from penstock.buses.embedded import store
from penstock.buses.embedded.clock import BusClock
from penstock.buses.embedded.riding import with_riding
from penstock.buses.embedded.topology import find_destinations
from penstock.buses.embedded.writer import Transaction, Writer
from penstock.errors import BusUnavailable, NotCarried, PublishError, PublishTimeout, Unroutable

#: RabbitMQ's own watermark: below it nothing new is stored, so that acks still find room.
FREE_FLOOR_BYTES: Final = 50_000_000
#: One transaction takes so many messages of a batch, or so many bytes of bodies: acks wait no longer than that.
CHUNK_MESSAGES: Final = 1000
CHUNK_BYTES: Final = 8 * 1024 * 1024
#: SQLite's own limit is 1 GB a row.
MAX_BODY_BYTES: Final = 512 * 1024 * 1024

Answers = list[PublishError | None]


class Publishing:
    """Stores messages through the writer; `free_floor_bytes` is the free space below which it refuses."""

    def __init__(self, path: Path, clock: BusClock, free_floor_bytes: int = FREE_FLOOR_BYTES) -> None:
        self._path = path
        self._clock = clock
        self._free_floor_bytes = free_floor_bytes
        self._refuses = False
        """The last message was refused for want of space; written by the writer's thread, as the next one."""
        self.refusals = 0
        """How often it began to refuse."""

    def why_it_refuses(self) -> str | None:
        """Why messages are refused now, in words; None when the last one was not, or space is free again."""
        if not self._refuses:
            return None
        try:
            return self._too_full(0)
        except OSError as error:
            return str(error)

    async def publish(self, writer: Writer, messages: Sequence[Outgoing], timeout_s: float) -> Answers:
        """One answer a message, in order; each chunk of the batch is stored whole or not at all."""
        deadline_s = time.monotonic() + timeout_s
        answers: Answers = []
        for chunk in _chunks(messages):
            answers += await self._publish_chunk(writer, chunk, deadline_s, timeout_s)
        return answers

    async def _publish_chunk(
        self, writer: Writer, chunk: Sequence[Outgoing], deadline_s: float, timeout_s: float
    ) -> Answers:
        ticket = writer.submit(partial(self._store, messages=chunk), cost=len(chunk))
        try:
            await asyncio.wait([ticket.answer], timeout=max(0.0, deadline_s - time.monotonic()))
        except asyncio.CancelledError:
            ticket.withdraw()
            raise
        if ticket.answer.done():
            try:
                return ticket.answer.result()
            except BusUnavailable as error:
                return [_not_confirmed(message, error, is_uncertain=ticket.is_uncertain) for message in chunk]
        if ticket.withdraw():
            return [
                PublishError(
                    f"the message for {message.destination} was not stored within {timeout_s:g} s, because another "
                    f"process keeps the embedded bus's file {self._path} locked; it is in nobody's queue, publish "
                    "it again"
                )
                for message in chunk
            ]
        return [
            PublishTimeout(
                f"the message for {message.destination} was not confirmed within {timeout_s:g} s; it is probably "
                f"stored: publish it again with the same id ({message.message_id})"
            )
            for message in chunk
        ]

    # From here on: in the writer thread, and `_too_full` in any.

    def _store(self, transaction: Transaction, messages: Sequence[Outgoing]) -> Answers:
        too_full = self._refuse_when_full(sum(len(message.body) for message in messages))
        if too_full is not None:
            return [
                PublishError(f"the message for {message.destination} was not stored: {too_full}")
                for message in messages
            ]
        now_ms, now_s = self._clock.now_ms(), time.time()
        destinations: dict[tuple[str, str], list[tuple[int, int]] | Unroutable] = {}
        rows: list[tuple[store.NewMessage, store.Content]] = []
        answers: Answers = []
        for message in messages:
            route = (message.exchange, message.routing_key)
            if route not in destinations:
                try:
                    destinations[route] = find_destinations(transaction.connection, *route)
                except Unroutable as error:
                    destinations[route] = error
            reached = destinations[route]
            if isinstance(reached, Unroutable):
                # Each message its own exception: a raised one collects its raiser's traceback.
                answers.append(Unroutable(*reached.args))
                continue
            try:
                content = _content(message, now_s)
            except PublishError as error:
                answers.append(error)
                continue
            due_ms = now_ms + math.ceil(message.delay_s * 1000) if message.delay_s > 0 else None
            for queue_id, top in reached:
                new = store.NewMessage(queue_id, max(0, min(message.priority or 0, top)), due_ms)
                rows.append((new, content))
                transaction.touched.add(queue_id)
            answers.append(None)
        if rows:
            store.append(transaction.connection, rows)
        if any(new.due_ms is not None for new, _ in rows):
            self._clock.note(transaction.connection)
        return answers

    def _refuse_when_full(self, size_bytes: int) -> str | None:
        too_full = self._too_full(size_bytes)
        if too_full is not None and not self._refuses:
            self.refusals += 1
        self._refuses = too_full is not None
        return too_full

    def _too_full(self, size_bytes: int) -> str | None:
        disk = os.statvfs(self._path.parent)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes >= self._free_floor_bytes + size_bytes:
            return None
        return (
            f"only {free_bytes / 1e6:.0f} MB are free on the disk of {self._path}, and below "
            f"{self._free_floor_bytes / 1e6:.0f} MB the embedded bus takes nothing new, so that acks still find room; "
            "free some space and publish it again"
        )


def _not_confirmed(message: Outgoing, error: BusUnavailable, *, is_uncertain: bool) -> PublishError:
    if is_uncertain:
        return PublishTimeout(
            f"the message for {message.destination} may or may not be stored: {error}; publish it again with the same "
            f"id ({message.message_id})"
        )
    return PublishError(f"the message for {message.destination} was not stored: {error}")


def _chunks(messages: Sequence[Outgoing]) -> Iterator[Sequence[Outgoing]]:
    start = size_bytes = 0
    for index, message in enumerate(messages):
        if index > start and (
            index - start >= CHUNK_MESSAGES or size_bytes + len(message.body) > CHUNK_BYTES
        ):
            yield messages[start:index]
            start, size_bytes = index, 0
        size_bytes += len(message.body)
    if start < len(messages):
        yield messages[start:]


def _content(message: Outgoing, now_s: float) -> store.Content:
    where = f"the message for {message.destination} was not stored:"
    if len(message.body) > MAX_BODY_BYTES:
        raise NotCarried(f"{where} its body has {len(message.body)} bytes, the limit is {MAX_BODY_BYTES}")
    if message.delay_s > 0 and message.exchange:
        raise NotCarried(f"{where} a delayed message goes to one queue; publish it to the queue by name")
    words = (
        message.message_id or None,
        message.content_type,
        message.content_encoding,
        message.correlation_id,
        message.reply_to,
        message.type,
    )
    try:
        for word in words:
            if word is not None:
                word.encode()
        headers = with_riding(message.headers, message.history or FRESH)
        packed = msgspec.msgpack.encode(headers) if headers else None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NotCarried(f"{where} a header or property cannot be written: {error}") from error
    history = message.history or FRESH
    message_id, content_type, content_encoding, correlation_id, reply_to, type_ = words
    return store.Content(
        message_id=message_id,
        content_type=content_type,
        content_encoding=content_encoding,
        headers=packed,
        correlation_id=correlation_id,
        reply_to=reply_to,
        type=type_,
        priority=message.priority,
        published_at_s=now_s,
        attempts=history.attempts,
        crashes=history.crashes,
        first_failed_at_s=history.first_failed_at_s,
        body=message.body,
    )
