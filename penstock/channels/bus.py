"""`ctx.bus`: what a handler publishes is kept until its commit, or sent at once over the loop's own connection.

```
publish ──────▶ kept in the worker ──take()──▶ leaves with the outcome, after the commit
publish_now ──▶ channel ──▶ BusService ──▶ the bus ──confirm──▶ the handler goes on
```
What bounds it: what one handler keeps fits into one frame, because that is how it leaves.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias, Unpack
from uuid import UUID, uuid5

import msgspec
from msgspec import Raw, Struct

from penstock.app.messages import Outgoing
from penstock.app.options import Options
from penstock.app.payloads import make_outgoing
from penstock.channels import wire
from penstock.channels.service import Caller, Service
from penstock.channels.stub import Channel
from penstock.errors import ChannelError, PayloadError, PublishError

Publish: TypeAlias = Callable[[Sequence[Outgoing], float], Awaitable[list[PublishError | None]]]

SERVICE: Final = "bus"
#: Of the ids that Penstock derives; whoever derives them again must find the same.
_NAMESPACE: Final = UUID("9d4b1c52-2a6f-5d0e-8a37-60f1c1a7e4b3")
#: Around the kept messages in the frame in which they leave.
_AROUND_BYTES: Final = 128


class PublishNow(Struct, frozen=True, array_like=True):
    """One message to send now; `timeout_s` None means as `bus.confirm_timeout_s` says."""

    message: Outgoing
    timeout_s: float | None = None


_decode_publish_now: Final = msgspec.msgpack.Decoder(PublishNow).decode


class BusService:
    """The service named "bus": `publish_now` over the loop's own connection.

    `publish` takes messages and a time limit in seconds, and gives an error or None for each.
    """

    def __init__(self, publish: Publish, timeout_s: float) -> None:
        self._publish = publish
        self._timeout_s = timeout_s

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:  # noqa: ARG002 - a service's shape
        """Answer `publish_now`. Raises `Unroutable`, `PublishTimeout` or another `PublishError`."""
        if method != "publish_now":
            msg = f"the bus channel knows no {method!r}"
            raise ChannelError(msg)
        asked = _decode_publish_now(arguments)
        timeout_s = self._timeout_s if asked.timeout_s is None else asked.timeout_s
        (error,) = await self._publish([asked.message], timeout_s)
        if error is not None:
            raise error

    def forget(self, caller: Caller) -> None:
        """Nothing is held for a caller."""


class Kept:
    """What one handler has published so far, and the ids that its next messages get."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes - _AROUND_BYTES
        self._messages: list[Outgoing] = []
        self._bytes = 0
        self._parent_id: str | None = None
        self._handler = ""
        self._positions = itertools.count()

    def begin(self, parent_id: str | None, handler: str) -> None:
        """A message begins: what an earlier one left is forgotten."""
        self.take()
        self._parent_id = parent_id
        self._handler = handler
        self._positions = itertools.count()

    def take(self) -> tuple[Outgoing, ...]:
        """What was kept, in order; nothing is kept after it."""
        messages, self._messages, self._bytes = tuple(self._messages), [], 0
        return messages

    def make(self, queue_or_payload: Any, payload: Any, options: Options) -> Outgoing:
        """The message, with an id that another run of the same handler for the same message gives it too."""
        position = next(self._positions)
        if options.get("id") is None and self._parent_id is not None:
            options["id"] = derived_id(self._parent_id, self._handler, position)
        return make_outgoing(queue_or_payload, payload, **options)

    def keep(self, message: Outgoing) -> None:
        """Raises `PayloadError` when all that is kept would not leave in one frame."""
        size = len(wire.encode(message))
        if self._bytes + size > self._limit_bytes:
            msg = (
                f"this handler has published {self._bytes} bytes and the next message has {size}: what it keeps until its "
                "commit fits into one frame (limits.frame_bytes); publish less in one message, or send with publish_now"
            )
            raise PayloadError(msg)
        self._bytes += size
        self._messages.append(message)


class KeepingBus:
    """What `ctx.bus` is on both sides of the process border; how `publish_now` travels is each side's own."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._kept = Kept(limit_bytes=limit_bytes)

    def begin(self, parent_id: str | None, handler: str) -> None:
        """A message with this id begins in this handler: what an earlier one left is forgotten."""
        self._kept.begin(parent_id, handler)

    def take(self) -> tuple[Outgoing, ...]:
        """What the handler published, in order; nothing is kept after it."""
        return self._kept.take()

    def publish(self, queue_or_payload: Any, payload: Any = ..., **options: Unpack[Options]) -> str:
        """Keep a message that leaves after the handler's commit; returns its id. Raises `PayloadError`."""
        message = self._kept.make(queue_or_payload, payload, options)
        self._kept.keep(message)
        return message.message_id

    def _to_send(
        self, queue_or_payload: Any, payload: Any, timeout: float | None, options: Options
    ) -> PublishNow:
        if timeout is not None and not timeout > 0:
            msg = f"timeout={timeout!r}: a positive number of seconds, or None; nothing was published"
            raise PayloadError(msg)
        return PublishNow(self._kept.make(queue_or_payload, payload, options), timeout)


class BusStub(KeepingBus):
    """Implements `BusChannel` in a worker process."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(limit_bytes=channel.limit_bytes)
        self._channel = channel

    def publish_now(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> str:
        """Send it now and wait for the publisher confirm; returns its id.

        Raises `Unroutable`, `PublishTimeout` after `timeout` seconds, another `PublishError`, `ChannelClosed`.
        """
        asked = self._to_send(queue_or_payload, payload, timeout, options)
        self._channel.call(SERVICE, "publish_now", asked)
        return asked.message.message_id


class LocalBus(KeepingBus):
    """Implements `AsyncBusChannel` for one delivery on the loop."""

    def __init__(self, service: Service, caller: Caller, *, limit_bytes: int) -> None:
        super().__init__(limit_bytes=limit_bytes)
        self._service = service
        self._caller = caller

    async def publish_now(
        self,
        queue_or_payload: Any,
        payload: Any = ...,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - it says what has become of the message
        **options: Unpack[Options],
    ) -> str:
        """As `BusStub.publish_now`, awaited."""
        asked = self._to_send(queue_or_payload, payload, timeout, options)
        await self._service.call("publish_now", Raw(wire.encode(asked)), self._caller)
        return asked.message.message_id


def derived_id(parent_id: str, handler: str, position: int) -> str:
    """The id of the message that a handler publishes as its `position`th (from 0) for the message `parent_id`."""
    return uuid5(_NAMESPACE, f"{len(parent_id)}:{parent_id}:{handler}:{position}").hex
