"""AMQP properties to a delivery, an outgoing message to AMQP properties; what is believed, and what is not.

Our counters ride on the message that we publish again. They are believed when `user_id` names our own login, because
the broker refuses a `user_id` that is not the publisher's; from anybody else they are dropped. `x-death` and
`x-delivery-count` can be forged on a classic queue: the first is dropped, the second is no more than a hint.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

from aiormq import spec

from penstock.app import header_names
from penstock.app.messages import FRESH, HeaderValue, History, Outgoing
from penstock.buses.contract import Delivery, Settler
from penstock.buses.rabbitmq.properties import read_properties
from penstock.buses.rabbitmq.stream import Content

ATTEMPTS: Final = "x-penstock-attempts"
CRASHES: Final = "x-penstock-crashes"
FIRST_FAILED_AT: Final = "x-penstock-first-failed-at-unix-ms"
STARTS: Final = "x-penstock-starts"
ALONE: Final = "x-penstock-alone"
LOSSES: Final = "x-penstock-losses"
#: Longer than Penstock writes it: somebody else did.
MAX_PAST_CHARS: Final = 8 * 1024
DELIVERY_COUNT: Final = "x-delivery-count"
OUR_PREFIX: Final = "x-penstock-"
_DROPPED: Final = frozenset(
    {
        DELIVERY_COUNT,
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "CC",
        "BCC",
    }
)
_PERSISTENT: Final = 2
_PLAIN: Final = (str, int, float, bool, bytes, type(None))


def to_delivery(
    content: Content,
    queue: str,
    settler: Settler,
    login: str,
    *,
    keep_ours: bool = False,
    is_counted: bool = True,
) -> Delivery:
    """The delivery that a broker's message is.

    `keep_ours` leaves our headers on it, for looking at dead letters; `is_counted` says that the queue counts deliveries,
    which only a quorum queue does: on another one the count is what a publisher wrote.
    """
    properties = read_properties(content.properties)
    delivery = Delivery(
        queue,
        content.tag,
        settler,
        content.body,
        properties.message_id,
        properties.content_type,
        properties.content_encoding,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        type=properties.type,
        priority=properties.priority,
        timestamp_s=properties.timestamp_s,
        redelivered=content.redelivered,
        delivery_count=None if content.redelivered else 0,
    )
    headers = properties.headers
    if headers:
        is_ours = properties.user_id == login
        delivery.headers = _own_values(headers, keep_ours=keep_ours and is_ours)
        if is_counted and (count := _whole(headers.get(DELIVERY_COUNT))):
            delivery.delivery_count = count
        if is_ours and ATTEMPTS in headers:
            delivery.history = _history(headers)
    return delivery


def to_properties(message: Outgoing, login: str) -> spec.Basic.Properties:
    """AMQP properties of a message that we publish: always persistent, vouched for when it carries our headers."""
    # pamqp writes a bytearray as AMQP's byte array, and knows no bytes.
    headers: dict[str, Any] = {
        name: bytearray(value) if isinstance(value, bytes) else value
        for name, value in message.headers.items()
    }
    history = message.history
    if history is not None and history != FRESH:
        headers[ATTEMPTS] = history.attempts
        headers[CRASHES] = history.crashes
        headers[FIRST_FAILED_AT] = round(history.first_failed_at_s * 1000)
        if history.commit_unknown:
            headers[header_names.COMMIT_UNKNOWN] = True
        if history.replays:
            headers |= {header_names.REPLAYS: history.replays, header_names.PAST: history.past}
        if history.starts:
            headers[STARTS] = history.starts
        if history.alone:
            headers[ALONE] = True
        if history.losses:
            headers[LOSSES] = history.losses
    return spec.Basic.Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        delivery_mode=_PERSISTENT,
        priority=message.priority,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        message_id=message.message_id or None,
        timestamp=datetime.fromtimestamp(int(time.time()), UTC),
        message_type=message.type,
        user_id=login if any(name.startswith(OUR_PREFIX) for name in headers) else None,
    )


def _own_values(headers: Mapping[str, Any], *, keep_ours: bool) -> dict[str, HeaderValue]:
    kept: dict[str, HeaderValue] = {}
    for name, value in headers.items():
        if name in _DROPPED or (name.startswith(OUR_PREFIX) and not keep_ours):
            continue
        if isinstance(value, bytearray):
            kept[name] = bytes(value)
        elif isinstance(value, float) and not isfinite(value):
            # RabbitMQ hands it out and closes the connection of whoever publishes it again.
            kept[name] = repr(value)
        elif isinstance(value, _PLAIN):
            kept[name] = value
        elif isinstance(value, datetime):
            kept[name] = value.timestamp()
    return kept


def _history(headers: Mapping[str, Any]) -> History:
    past = headers.get(header_names.PAST)
    return History(
        _whole(headers.get(ATTEMPTS)),
        _whole(headers.get(CRASHES)),
        _whole(headers.get(FIRST_FAILED_AT)) / 1000,
        headers.get(header_names.COMMIT_UNKNOWN) is True,
        _whole(headers.get(header_names.REPLAYS)),
        past if isinstance(past, str) and len(past) <= MAX_PAST_CHARS else "",
        _whole(headers.get(STARTS)),
        headers.get(ALONE) is True,
        _whole(headers.get(LOSSES)),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
