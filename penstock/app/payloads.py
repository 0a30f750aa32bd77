"""A payload on its way out: from a Python value to an `Outgoing` message, the same for every publisher."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NoReturn, Unpack
from uuid import uuid4

from pydantic_core import PydanticSerializationError, to_json

from penstock.app import header_names
from penstock.app.messages import MAX_DELAY_S, HeaderValue, Outgoing
from penstock.app.options import Options
from penstock.errors import PayloadError

JSON: Final = "application/json"
TEXT: Final = "text/plain"
OCTETS: Final = "application/octet-stream"

#: AMQP 0-9-1 short strings: message id, routing key, exchange, a header's name.
MAX_SHORT_BYTES = 255
#: Headers travel in one frame; a frame beyond the broker's 131,064 bytes closes the whole connection.
MAX_HEADERS_BYTES = 64 * 1024
#: AMQP's and msgpack's widest integer.
MAX_HEADER_INT = 2**63 - 1
MAX_PRIORITY = 255

#: What Python's JSON writers put where a number is none; no reader of JSON has to take it.
_NOT_NUMBERS: Final = (b"NaN", b"Infinity")

_ABSENT: Final = ...


def encode_payload(payload: Any) -> tuple[bytes, str]:
    """Body and content type: `bytes` and `str` travel as they are, anything else as JSON by pydantic.

    Raises `PayloadError` when pydantic cannot serialise it, or what comes out is no JSON (NaN, Infinity).
    """
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload), OCTETS
    try:
        if isinstance(payload, str):
            return payload.encode(), TEXT
        body = to_json(payload)
        if any(word in body for word in _NOT_NUMBERS):
            # The words may as well stand in a string; whoever has them there pays for the second look.
            json.loads(body, parse_constant=_refuse_constant)
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        kind = "UTF-8" if isinstance(payload, str) else "JSON"
        msg = f"a payload of type {type(payload).__qualname__} cannot be written as {kind}: {error}; nothing was published"
        raise PayloadError(msg) from error
    return body, JSON


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def make_outgoing(
    queue_or_payload: Any,
    payload: Any = _ABSENT,
    **options: Unpack[Options],
) -> Outgoing:
    """The message that `publish(queue, payload)` or `publish(payload, exchange=…, routing_key=…)` means.

    A message without `id` gets a random one. Raises `PayloadError` for what no bus could carry, `TypeError` for a
    word that is none of the options.
    """
    if not options.keys() <= Options.__optional_keys__:
        unknown = ", ".join(sorted(options.keys() - Options.__optional_keys__))
        msg = f"publish(…) knows no {unknown}; it takes {', '.join(sorted(Options.__optional_keys__))}"
        raise TypeError(msg)
    target, key, content = _addressed(queue_or_payload, payload, options)
    body, content_type = encode_payload(content)
    given_id, priority, delay = options.get("id"), options.get("priority"), options.get("delay")
    message_id = uuid4().hex if given_id is None else given_id
    correlation_id, reply_to = options.get("correlation_id"), options.get("reply_to")
    words = (
        ("id", message_id),
        ("routing key", key),
        ("exchange", target),
        ("correlation_id", correlation_id),
        ("reply_to", reply_to),
        ("type", options.get("type")),
    )
    for what, text in words:
        size = _size_bytes(what, text)
        if size > MAX_SHORT_BYTES or (what == "id" and not size):
            msg = f"the message's {what} has {size} bytes; AMQP carries 1 to {MAX_SHORT_BYTES}; nothing was published"
            raise PayloadError(msg)
    if priority is not None and priority not in range(MAX_PRIORITY + 1):
        msg = f"priority={priority!r}: a whole number from 0 to {MAX_PRIORITY}; nothing was published"
        raise PayloadError(msg)
    if delay is not None and not 0 <= delay <= MAX_DELAY_S:
        msg = f"delay={delay!r}: seconds, from 0 to {MAX_DELAY_S:.0f} (12 days); nothing was published"
        raise PayloadError(msg)
    if delay and target:
        msg = "delay works for publish(queue, payload) only: a delayed message goes to one queue; nothing was published"
        raise PayloadError(msg)
    return Outgoing(
        routing_key=key,
        body=body,
        exchange=target,
        message_id=message_id,
        content_type=content_type,
        headers=_own_headers(options.get("headers")),
        correlation_id=correlation_id,
        reply_to=reply_to,
        type=options.get("type"),
        priority=priority,
        delay_s=delay or 0.0,
    )


def _addressed(queue_or_payload: Any, payload: Any, options: Options) -> tuple[str, str, Any]:
    """Exchange, routing key and content of the two ways to call it."""
    exchange, routing_key = options.get("exchange"), options.get("routing_key")
    if payload is _ABSENT:
        if exchange is None:
            msg = "publish(payload) needs exchange=…; to a queue it is publish(queue, payload)"
            raise PayloadError(msg)
        return exchange, routing_key or "", queue_or_payload
    if exchange is not None or routing_key is not None:
        msg = "publish(queue, payload) goes to a queue; leave exchange and routing_key out, or leave the queue out"
        raise PayloadError(msg)
    if not isinstance(queue_or_payload, str) or not queue_or_payload:
        msg = f"publish({queue_or_payload!r}, …): the first argument is the queue's name"
        raise PayloadError(msg)
    return "", queue_or_payload, payload


def _own_headers(headers: Mapping[str, HeaderValue] | None) -> dict[str, HeaderValue]:
    if not headers:
        return {}
    total = 0
    for name, value in headers.items():
        if name.lower().startswith(header_names.RESERVED):
            msg = f"header {name!r} is Penstock's or the broker's own; choose another name; nothing was published"
            raise PayloadError(msg)
        size = _size_bytes("header name", name)
        if not 0 < size <= MAX_SHORT_BYTES:
            msg = f"header name {name[:40]!r} has {size} bytes; AMQP carries 1 to {MAX_SHORT_BYTES}; nothing was published"
            raise PayloadError(msg)
        total += size + _value_bytes(name, value)
    if total > MAX_HEADERS_BYTES:
        msg = f"the headers have {total} bytes, the limit is {MAX_HEADERS_BYTES}; put it into the body; nothing was published"
        raise PayloadError(msg)
    return dict(headers)


def _value_bytes(name: str, value: object) -> int:
    if isinstance(value, str):
        return _size_bytes(f"header {name!r}", value)
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, float) and not isfinite(value):
        msg = f"header {name!r} is {value!r}, which no broker carries; nothing was published"
        raise PayloadError(msg)
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) <= MAX_HEADER_INT):
        return 8
    msg = (
        f"header {name!r} is {type(value).__qualname__}, or an integer of more than 64 bits; a header is str, int, "
        "float, bool, bytes or None; nothing was published"
    )
    raise PayloadError(msg)


def _size_bytes(what: str, text: str | None) -> int:
    if text is None:
        return 0
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        msg = f"the message's {what} cannot be written as UTF-8: {error}; nothing was published"
        raise PayloadError(msg) from error
