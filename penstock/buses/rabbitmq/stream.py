"""Takes messages out of the broker's byte stream before the AMQP library sees them, and writes acks beside it.

```
 socket ─ bytes ─▶ Splitter ─ a message, whole ─▶ the taker of its AMQP channel, at once
    ▲  ▲               └───── every other frame ─▶ aiormq ─┐
    │  └─────────────────── its own frames ────────────────┘
    └────────────────────── acks
```
aiormq spends a task, three queue hops and a general decoder on every delivery: 35 us of them. It also decodes in the
task that reads for all queues, where one property that it cannot read ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple, TypeAlias

from aiormq.abc import DeliveredMessage
from aiormq.connection import SSLContextProvider, TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

# Frames and methods as AMQP 0-9-1 has them, sections 2.3.5 and 4.2.3.
_FRAME: Final = Struct(">BHI")
_FRAME_END: Final = 0xCE
_FRAME_START_BYTES: Final = 7
_FRAME_AROUND_BYTES: Final = 8
_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_KINDS: Final = frozenset({_METHOD, _HEADER, _BODY, _HEARTBEAT})
_DELIVER: Final = b"\x00\x3c\x00\x3c"
_CHANNEL_CLOSE: Final = b"\x00\x14\x00\x28"
_GET_OK: Final = b"\x00\x3c\x00\x47"
_GET_EMPTY: Final = b"\x00\x3c\x00\x48\x00"
_BLOCKED: Final = b"\x00\x0a\x00\x3c"
_UNBLOCKED: Final = b"\x00\x0a\x00\x3d"
_BODY_SIZE: Final = Struct(">4xQ")
_BODY_SIZE_BYTES: Final = 12
_TAG: Final = Struct(">QB")
HEARTBEAT: Final = _FRAME.pack(_HEARTBEAT, 0, 0) + bytes([_FRAME_END])

#: A stream that is full of messages carries no heartbeat (RabbitMQ sends them when it is silent): aiormq gets ours.
ALIVE_S: Final = 1.0


class Content(NamedTuple):
    """A message as it came: what the broker says about its delivery, its properties still packed, its body."""

    consumer_tag: str
    """Empty for the answer to basic.get."""
    tag: int
    redelivered: bool
    properties: bytes
    body: bytes


Taker: TypeAlias = Callable[[Content], None]

OnClosed: TypeAlias = Callable[[], None]
"""Called when the broker closes the AMQP channel: what is written on it from now on costs the connection."""

OnBlocked: TypeAlias = Callable[[str | None], None]
"""Called with the broker's reason when it takes no messages any more, with None when it does again."""


class _Begun:
    """A message of which some frames are there."""

    __slots__ = ("consumer_tag", "left_bytes", "parts", "properties", "redelivered", "tag")

    def __init__(self, method: bytes) -> None:
        start = 4
        self.consumer_tag = ""
        if method.startswith(_DELIVER):
            start = 5 + method[4]
            self.consumer_tag = method[5:start].decode("latin-1")
        self.tag, flags = _TAG.unpack_from(method, start)
        self.redelivered = bool(flags & 1)
        self.properties = b""
        self.parts: list[bytes] = []
        self.left_bytes = 0

    def whole(self) -> Content:
        """The message, once nothing is left."""
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        return Content(self.consumer_tag, self.tag, self.redelivered, self.properties, body)


class Splitter:
    """Reads frames from bytes that arrive in pieces; memory only, one for each connection."""

    def __init__(self, on_blocked: OnBlocked = lambda _: None) -> None:
        self._on_blocked = on_blocked
        self._takers: dict[int, tuple[Taker, OnClosed]] = {}
        self._begun: dict[int, _Begun] = {}
        self._piece = bytearray()
        """The beginning of a frame."""
        self._needed_bytes = 0
        self._is_foreign = False

    def take(self, number: int, taker: Taker, on_closed: OnClosed) -> None:
        """From now on the messages of this AMQP channel go to `taker`; neither call may raise."""
        self._begun.pop(number, None)
        self._takers[number] = taker, on_closed

    def feed(self, data: bytes) -> bytes:
        """Read on; returns what is not a message, whole frames only."""
        if self._is_foreign:
            return data
        if self._piece:
            self._piece += data
            if len(self._piece) < self._needed_bytes:
                return b""
            data = self.rest()
        return self._split(data)

    def rest(self) -> bytes:
        """Give up the frame that has begun; returns what has come of it."""
        piece = bytes(self._piece)
        self._piece.clear()
        return piece

    def _split(self, data: bytes) -> bytes:
        begin, passed, end = 0, 0, len(data)
        others: list[bytes] = []
        self._needed_bytes = _FRAME_START_BYTES
        while end - begin >= _FRAME_START_BYTES:
            kind, number, size_bytes = _FRAME.unpack_from(data, begin)
            after = begin + size_bytes + _FRAME_AROUND_BYTES
            if kind not in _KINDS or (after <= end and data[after - 1] != _FRAME_END):
                # No frame of AMQP: aiormq gets it as it is and says so.
                self._is_foreign = True
                begin = end
                break
            if after > end:
                self._needed_bytes = after - begin
                break
            if number in self._takers:
                instead = self._taken(kind, number, data[begin + _FRAME_START_BYTES : after - 1])
                if instead is not None:
                    others += (data[passed:begin], instead)
                    passed = after
            elif number == 0:
                # aiormq has no hook for it.
                self._note_alarm(data[begin + _FRAME_START_BYTES : after - 1])
            begin = after
        if begin < end:
            self._piece += data[begin:]
        others.append(data[passed:begin])
        return b"".join(others)

    def _note_alarm(self, payload: bytes) -> None:
        if payload.startswith(_BLOCKED):
            self._on_blocked(payload[5 : 5 + payload[4]].decode(errors="replace"))
        elif payload.startswith(_UNBLOCKED):
            self._on_blocked(None)

    def _taken(self, kind: int, number: int, payload: bytes) -> bytes | None:
        """What aiormq gets in the place of this frame; None for the frame itself."""
        if kind == _METHOD:
            if not payload.startswith((_DELIVER, _GET_OK)):
                if payload.startswith(_CHANNEL_CLOSE):
                    self._takers.pop(number)[1]()
                return None
            self._begun[number] = _Begun(payload)
            return b""
        begun = self._begun.get(number)
        if begun is None:
            return None
        if kind == _HEADER:
            begun.properties = payload[_BODY_SIZE_BYTES:]
            (begun.left_bytes,) = _BODY_SIZE.unpack_from(payload)
        else:
            begun.parts.append(payload)
            begun.left_bytes -= len(payload)
        if begun.left_bytes > 0:
            return b""
        del self._begun[number]
        self._takers[number][0](begun.whole())
        return b"" if begun.consumer_tag else _frame(number, _GET_EMPTY)


class SplitReader(asyncio.StreamReader):
    """Hands on what the splitter leaves."""

    def __init__(self, splitter: Splitter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._splitter = splitter
        self._clock = loop.time
        self._fed_at_s = loop.time()

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        """Bytes have arrived."""
        others = self._splitter.feed(data)
        now_s = self._clock()
        if not others and now_s - self._fed_at_s > ALIVE_S:
            others = HEARTBEAT
        if others:
            self._fed_at_s = now_s
            super().feed_data(others)

    def feed_eof(self) -> None:
        """No more bytes come."""
        piece = self._splitter.rest()
        if piece:
            super().feed_data(piece)
        super().feed_eof()


class Wire(TransportFactory):
    """Both directions of one connection: what comes is split, and frames of ours may be written between aiormq's."""

    def __init__(self, on_blocked: OnBlocked = lambda _: None) -> None:
        self.splitter = Splitter(on_blocked)
        self._transport: asyncio.WriteTransport | None = None

    def write(self, frames: bytes) -> None:
        """Hand whole frames to the socket at once; nothing happens when the connection is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def abort(self) -> None:
        """End the connection without a word; harmless when it has ended."""
        if self._transport is not None:
            self._transport.abort()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `asyncio.open_connection`, with a reader of ours. Raises `AMQPConnectionError`."""
        provider: SSLContextProvider = kwargs.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        # The address is checked before, and aiormq adds the port.
        assert url.host
        assert url.port
        reader = SplitReader(self.splitter, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            self._transport, _ = await loop.create_connection(
                lambda: protocol, host=url.host, port=url.port, ssl=tls, **kwargs
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        return reader, asyncio.StreamWriter(self._transport, protocol, reader, loop)


async def not_called(message: DeliveredMessage) -> None:
    """What aiormq asks for; the splitter takes the deliveries before it sees any."""
    raise AssertionError(message)


def _frame(number: int, payload: bytes) -> bytes:
    return _FRAME.pack(_METHOD, number, len(payload)) + payload + bytes([_FRAME_END])
