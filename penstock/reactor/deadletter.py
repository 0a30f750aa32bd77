"""What a dead letter says of itself: headers that a person, and `penstock dead`, can read.

Headers of ours are at most 32 KiB together: with a longer table the frame exceeds the broker's limit of 131,064
bytes, and that closes the whole connection. The message's own headers are dropped, with a note, when they are large.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from penstock.app.messages import HeaderValue, History, Outgoing
from penstock.app.outcomes import Died, Failure
from penstock.buses.contract import Delivery

REASON: Final = "x-penstock-reason"
EXCEPTION: Final = "x-penstock-exception"
TEXT: Final = "x-penstock-exception-text"
TRACEBACK: Final = "x-penstock-traceback"
ATTEMPTS: Final = "x-penstock-attempts"
CRASHES: Final = "x-penstock-crashes"
FIRST_AT: Final = "x-penstock-first-failed-at"
LAST_AT: Final = "x-penstock-last-failed-at"
QUEUE: Final = "x-penstock-queue"
#: On what could not be routed: the exchange that it was published to, with the routing key in `QUEUE`.
EXCHANGE: Final = "x-penstock-exchange"
HANDLER: Final = "x-penstock-handler"
CUT: Final = "x-penstock-headers-dropped"
#: The four of a message that killed its worker: the last time, when it did so more than once.
CRASH: Final = "x-penstock-crash"
CRASH_PHASE: Final = "x-penstock-crash-phase"
CRASH_PEAK: Final = "x-penstock-crash-peak-memory"
CRASH_STACK: Final = "x-penstock-crash-stack"
COMMIT_UNKNOWN: Final = "x-penstock-commit-unknown"
#: On what was a dead letter before: how often, and as JSON how it ended each time.
REPLAYS: Final = "x-penstock-replays"
PAST: Final = "x-penstock-history"

MAX_REASON_BYTES: Final = 2 * 1024
MAX_TEXT_BYTES: Final = 4 * 1024
#: Of an exception's traceback or of a dead worker's stack; a letter has one of the two.
MAX_TRACEBACK_BYTES: Final = 16 * 1024
MAX_PAST_BYTES: Final = 4 * 1024
#: Inbound headers beyond this are left out of the dead letter.
MAX_INBOUND_BYTES: Final = 64 * 1024


def dead_letter(
    delivery: Delivery,
    *,
    dead_queue: str,
    handler: str,
    reason: str,
    failure: Failure | None,
    died: Died | None,
    history: History,
    now_s: float,
) -> Outgoing:
    """The message for the dead-letter queue: the same body and id, with the reason and the evidence."""
    headers, size_bytes = inbound_headers(delivery)
    if size_bytes:
        headers[CUT] = f"{size_bytes} bytes of the message's own headers were left out"
    headers |= {
        REASON: _cut(reason, MAX_REASON_BYTES),
        QUEUE: delivery.queue,
        HANDLER: _cut(handler, MAX_REASON_BYTES),
        ATTEMPTS: history.attempts,
        CRASHES: history.crashes,
        FIRST_AT: moment(history.first_failed_at_s or now_s),
        LAST_AT: moment(now_s),
    }
    if died is not None:
        headers |= {CRASH: _cut(died.how, MAX_REASON_BYTES), CRASH_PHASE: died.phase}
        if died.peak_bytes:
            headers[CRASH_PEAK] = f"{died.peak_bytes / 2**20:.1f} MiB"
        if died.stack:
            headers[CRASH_STACK] = _cut(died.stack, MAX_TRACEBACK_BYTES)
    if history.commit_unknown:
        headers[COMMIT_UNKNOWN] = True
    if history.replays:
        headers |= {REPLAYS: history.replays, PAST: history.past}
    if failure is not None:
        headers[EXCEPTION] = _cut(failure.type, MAX_REASON_BYTES)
        headers[TEXT] = _cut(failure.text, MAX_TEXT_BYTES)
        if failure.traceback:
            headers[TRACEBACK] = _cut(failure.traceback, MAX_TRACEBACK_BYTES, keep_end=True)
    return again(delivery, routing_key=dead_queue, headers=headers)


def again(delivery: Delivery, *, routing_key: str, headers: dict[str, HeaderValue]) -> Outgoing:
    """The delivered message, to be published again elsewhere; priority, expiration and CC are not carried on."""
    return Outgoing(
        routing_key=routing_key,
        body=delivery.body,
        message_id=delivery.message_id or "",
        content_type=delivery.content_type,
        content_encoding=delivery.content_encoding,
        headers=headers,
        correlation_id=delivery.correlation_id,
        reply_to=delivery.reply_to,
        type=delivery.type,
    )


def inbound_headers(delivery: Delivery) -> tuple[dict[str, HeaderValue], int]:
    """The message's own headers, and 0; or none and their size in bytes when they are too large to carry on."""
    size_bytes = sum(_wire_bytes(name) + _wire_bytes(value) for name, value in delivery.headers.items())
    if size_bytes > MAX_INBOUND_BYTES:
        return {}, size_bytes
    return dict(delivery.headers), 0


def _wire_bytes(value: HeaderValue) -> int:
    """What a name or a value takes in a header table, its type and length included; never too little."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "backslashreplace")) + 8
    return (len(value) if isinstance(value, bytes) else 8) + 8


def _cut(text: str, limit_bytes: int, *, keep_end: bool = False) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    if keep_end:
        return "… " + encoded[-limit_bytes + 4 :].decode(errors="ignore")
    return encoded[: limit_bytes - 4].decode(errors="ignore") + " …"


def moment(unix_s: float) -> str:
    """A Unix time as headers have it: UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")
