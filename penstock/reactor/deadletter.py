"""What a dead letter says of itself: headers that a person, and `penstock dead`, can read.

Headers of ours are at most 32 KiB together: with a longer table the frame exceeds the broker's limit of 131,064
bytes, and that closes the whole connection. The message's own headers are dropped, with a note, when they are large.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from penstock.app import header_names
from penstock.app.messages import HeaderValue, History, Outgoing
from penstock.app.outcomes import Died, Failure
from penstock.buses.contract import Delivery

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
        headers[header_names.CUT] = f"{size_bytes} bytes of the message's own headers were left out"
    headers |= {
        header_names.REASON: _cut(reason, MAX_REASON_BYTES),
        header_names.QUEUE: delivery.queue,
        header_names.HANDLER: _cut(handler, MAX_REASON_BYTES),
        header_names.ATTEMPTS: history.attempts,
        header_names.CRASHES: history.crashes,
        header_names.FIRST_AT: moment(history.first_failed_at_s or now_s),
        header_names.LAST_AT: moment(now_s),
    }
    if died is not None:
        headers |= {
            header_names.CRASH: _cut(died.how, MAX_REASON_BYTES),
            header_names.CRASH_PHASE: died.phase,
        }
        if died.peak_bytes:
            headers[header_names.CRASH_PEAK] = f"{died.peak_bytes / 2**20:.1f} MiB"
        if died.stack:
            headers[header_names.CRASH_STACK] = _cut(died.stack, MAX_TRACEBACK_BYTES)
    if history.commit_unknown:
        headers[header_names.COMMIT_UNKNOWN] = True
    if history.replays:
        headers |= {header_names.REPLAYS: history.replays, header_names.PAST: history.past}
    if failure is not None:
        headers[header_names.EXCEPTION] = _cut(failure.type, MAX_REASON_BYTES)
        headers[header_names.TEXT] = _cut(failure.text, MAX_TEXT_BYTES)
        if failure.traceback:
            headers[header_names.TRACEBACK] = _cut(failure.traceback, MAX_TRACEBACK_BYTES, keep_end=True)
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
