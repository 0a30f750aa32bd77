"""A communication channel's end in the worker: calls go out, the thread waits, answers come back."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, TypeVar, overload

import msgspec

from penstock.app.outcomes import Outcome
from penstock.channels import wire
from penstock.channels.frames import FrameDecoder, encode_frame
from penstock.errors import ChannelClosed, DeadlineExceeded

T = TypeVar("T")
#: More is allocated from the system and given back to it each time, whatever comes.
READ_BYTES = 64 * 1024
#: A longer line of the log is cut; it would fill the log of everybody else.
MAX_LINE_CHARS: Final = 16 * 1024
_MAX_LEVEL_CHARS: Final = 32
#: What msgpack carries as an integer.
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
#: The most that msgpack writes in front of a text, or of everything in a line.
_FRAMING_BYTES: Final = 16


class Channel:
    """The worker's side of its one duplex socket; any thread of the worker may call.

    `shield` wraps what a soft deadline must not cut in two: writing a frame, reading one.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        limit_bytes: int,
        shield: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        self._socket = sock
        self._limit_bytes = limit_bytes
        self._shield = shield
        self._decoder = FrameDecoder(limit_bytes=limit_bytes)
        self._ready: list[wire.FromLoop] = []
        self._ids = itertools.count(1)
        self._calls = threading.Lock()
        self._writes = threading.Lock()
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    @property
    def limit_bytes(self) -> int:
        """Longest frame that this channel carries."""
        return self._limit_bytes

    @overload
    def call(self, service: str, method: str, arguments: object) -> Any: ...

    @overload
    def call(self, service: str, method: str, arguments: object, result_type: type[T]) -> T: ...

    def call(self, service: str, method: str, arguments: object, result_type: Any = Any) -> Any:
        """Call a service on the loop and wait for its answer.

        Raises what the service refused it with; `ChannelClosed` when the loop is gone.
        """
        with self._calls:
            call_id = next(self._ids)
            self._send(wire.Call(call_id, service, method, msgspec.Raw(wire.encode(arguments))))
            answer = self._answer(call_id)
        if isinstance(answer, wire.Refusal):
            raise wire.exception(answer)
        return msgspec.msgpack.decode(answer.value, type=result_type)

    def tell(self, service: str, method: str, arguments: object) -> bool:
        """Call a service without waiting for its answer, which is dropped; for finalizers, which may run anywhere.

        False, and nothing is told, while a thread is in the middle of a frame: it may be this one. Raises `ChannelClosed`.
        """
        if self._writes.locked():
            return False
        self._send(wire.Call(next(self._ids), service, method, msgspec.Raw(wire.encode(arguments))))
        return True

    def ended(self, batch: int, index: int, outcome: Outcome) -> None:
        """Tell the loop how a delivery ended; it survives this process once written."""
        self._send(wire.Ended(batch, index, outcome))

    def line(self, level: str, event: object, fields: Mapping[str, object]) -> None:
        """Hand a line of the log to the loop, which writes it whole.

        Whatever is in it goes: what msgpack cannot carry as its `repr`, an event beyond 16 Ki characters cut, and
        fields cut or left out when the line does not fit into a frame. Raises `ChannelClosed` when the loop is gone.
        """
        line = wire.Line(
            _text(level)[:_MAX_LEVEL_CHARS],
            (_text(event) if isinstance(event, str) else _described(event, str))[:MAX_LINE_CHARS],
            {_text(name): _plain(value) for name, value in fields.items()},
        )
        payload = wire.encode(line)
        if len(payload) > self._limit_bytes:
            payload = wire.encode(_cut(line, self._limit_bytes))
        self._write(payload)

    def close(self) -> None:
        """Close the socket; harmless when repeated."""
        # Closing alone would leave another thread that waits for an answer waiting.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _send(self, message: wire.FromWorker) -> None:
        self._write(wire.encode(message))

    def _write(self, payload: bytes) -> None:
        frame = encode_frame(payload, limit_bytes=self._limit_bytes)
        with self._shield(), self._writes:
            try:
                self._socket.sendall(frame)
            except OSError as error:
                msg = "the reactor's end of the channel is closed; the message is handed out again"
                raise ChannelClosed(msg) from error

    def _answer(self, call_id: int) -> wire.FromLoop:
        # An answer to an earlier call can still come when a soft deadline ended the wait for it: dropped.
        while True:
            for position, message in enumerate(self._ready):
                if message.id == call_id:
                    del self._ready[: position + 1]
                    return message
            self._ready.clear()
            self._receive()

    def _receive(self) -> None:
        # Waited for outside the shield, so that a soft deadline ends the wait; taken inside, so that it never
        # comes between the read and the decoder: what was read and lost would leave the stream in pieces.
        self._readable.poll()
        with self._shield():
            try:
                data = self._socket.recv(READ_BYTES)
            except OSError as error:
                msg = "the reactor's end of the channel broke; the message is handed out again"
                raise ChannelClosed(msg) from error
            if not data:
                msg = "the reactor closed the channel; the message is handed out again"
                raise ChannelClosed(msg)
            self._ready.extend(wire.decode_from_loop(payload) for payload in self._decoder.feed(data))


def _plain(value: object) -> str | int | float | bool | None:
    """A field's value as msgpack carries it."""
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case float():
            return float.__float__(value)
        case int():
            number = int.__int__(value)
            # In hexadecimal: Python refuses to write very long integers in decimal.
            return number if _MIN_INT <= number <= _MAX_INT else hex(number)
        case _:
            return _described(value, repr)


def _text(text: str) -> str:
    """Text of the plain type, and with a UTF-8: lone surrogates are written out."""
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _described(value: object, write: Callable[[object], str]) -> str:
    try:
        return _text(write(value))
    except DeadlineExceeded:
        # Not the value's fault: it comes out of whatever code runs at that moment.
        raise
    except Exception as error:  # noqa: BLE001 - the author's code; a line of the log is no reason to fail a message
        return f"<{type(value).__name__}: its {write.__name__}() raised {type(error).__name__}>"


def _cut(line: wire.Line, limit_bytes: int) -> wire.Line:
    """The line in at most so many bytes: the event takes half at most, the fields what is left, in their order."""
    event = _first_bytes(line.event, limit_bytes // 2)
    left = limit_bytes - len(wire.encode(wire.Line(line.level, event, {}))) - _FRAMING_BYTES
    fields: dict[str, Any] = {}
    for name, value in line.fields.items():
        left -= len(name.encode()) + 2 * _FRAMING_BYTES
        if left <= 0:
            break
        fields[name] = _first_bytes(value, left) if isinstance(value, str) else value
        left -= len(fields[name].encode()) if isinstance(value, str) else 0
    return wire.Line(line.level, event, fields)


def _first_bytes(text: str, size_bytes: int) -> str:
    return text.encode()[:size_bytes].decode(errors="ignore")
