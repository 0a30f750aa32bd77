"""A socket that carries frames, one end of it: blocking, in the thread that asks."""

from __future__ import annotations

import select
import socket
from typing import Final

from penstock.channels.frames import HEADER_BYTES, announced_length, frame_header

#: More is allocated from the system and given back to it each time, at 20 µs, whatever comes.
_READ_BYTES: Final = 64 * 1024
#: So much fits into an empty socket: writing it does not wait for a reader.
SHORT_BYTES: Final = 32 * 1024


class Line:
    """Sends and receives whole frames. One thread at a time."""

    def __init__(self, sock: socket.socket, *, limit_bytes: int) -> None:
        self.sock = sock
        self.limit_bytes = limit_bytes
        self._rest = b""
        self._poller = select.poll()
        self._poller.register(sock, select.POLLIN)

    def send(self, payload: bytes, mark: bytes = b"") -> None:
        """Write a frame. Raises `FrameError` when it is too long, before anything is written, and `OSError`."""
        head = frame_header(len(mark) + len(payload), limit_bytes=self.limit_bytes) + mark
        if len(payload) <= SHORT_BYTES:
            self.sock.sendall(head + payload)
        else:
            # A second call costs less than a copy.
            self.sock.sendall(head)
            self.sock.sendall(payload)

    def receive(self) -> memoryview:
        """The next frame's payload. Raises `EOFError` when the other end is closed, `FrameError` and `OSError`."""
        data, self._rest = self._rest, b""
        while len(data) < HEADER_BYTES:
            data += self._read()
        length = announced_length(data, limit_bytes=self.limit_bytes)
        end = HEADER_BYTES + length
        if len(data) >= end:
            self._rest = data[end:]
            return memoryview(data)[HEADER_BYTES:end]
        payload = memoryview(bytearray(length))
        filled = len(data) - HEADER_BYTES
        payload[:filled] = data[HEADER_BYTES:]
        while filled < length:
            # Whole, in one call without the GIL: with each return a thread would stand in line for it anew.
            count = self.sock.recv_into(payload[filled:], 0, socket.MSG_WAITALL)
            if count == 0:
                raise EOFError
            filled += count
        return payload

    def wait(self, seconds: float) -> bool:
        """True when something has come, or has come already with what was read before; False after so many seconds."""
        return bool(self._rest) or bool(self._poller.poll(seconds * 1000))

    def is_open(self) -> bool:
        """True when nothing has come, as between two questions; False for its end, or bytes that nobody asked for."""
        return not self._poller.poll(0)

    def _read(self) -> bytes:
        data = self.sock.recv(_READ_BYTES)
        if not data:
            raise EOFError
        return data
