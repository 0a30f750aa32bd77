"""What the reactor submits to a slot and what comes back: the batch, typed, encoded as msgpack."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from penstock.app.context import COMMIT_UNKNOWN, MessageInfo
from penstock.app.handlers import AnyHandler


class Job(Struct, frozen=True, array_like=True):
    """One delivery on its way to a worker: what decoding and the context need."""

    handler: int
    """Index in the plan's list of handlers."""
    body: bytes
    message_id: str | None
    content_type: str | None
    content_encoding: str | None
    headers: dict[str, Any]
    attempt: int
    redelivered: bool
    correlation_id: str | None
    reply_to: str | None
    type: str | None
    timestamp_s: float | None
    commit_unknown: bool = False


def message_info(handler: AnyHandler, job: Job) -> MessageInfo:
    """What `ctx.message` says of a job."""
    return MessageInfo(
        id=job.message_id,
        queue=handler.queue.name,
        handler=handler.name,
        attempt=job.attempt,
        redelivered=job.redelivered,
        headers=job.headers,
        correlation_id=job.correlation_id,
        reply_to=job.reply_to,
        type=job.type,
        timestamp_s=job.timestamp_s,
        redelivered_after=COMMIT_UNKNOWN if job.commit_unknown else None,
    )


class Batch(Struct, frozen=True, array_like=True):
    """Deliveries that travel in one submit, about 10 ms of work."""

    number: int
    jobs: list[Job]


class Report(Struct, frozen=True, array_like=True):
    """The batch is over: marks as in the recorder, and the run time of each delivery that ran."""

    marks: bytes
    run_ns: list[int]


class BootReport(Struct, frozen=True, array_like=True):
    """A worker is ready, or says why it never will be."""

    pid: int
    parent_pid: int
    preloaded: bool
    fault: str | None = None


encode = msgspec.msgpack.Encoder().encode
decode_batch = msgspec.msgpack.Decoder(Batch).decode
decode_report = msgspec.msgpack.Decoder(Report).decode
decode_boot_report = msgspec.msgpack.Decoder(BootReport).decode
