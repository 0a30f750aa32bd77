"""Length-prefixed frames, sans-I/O: bytes in, payloads out, and the other way round.

```
 0        1              5
 ┌────────┬──────────────┬───────────────┐
 │version │ length (u32) │ payload       │
 └────────┴──────────────┴───────────────┘
```
The length is checked against the limit before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct as Layout
from typing import Final

from penstock.errors import FrameError

VERSION: Final = 1
_HEADER: Final = Layout("!BI")
HEADER_BYTES: Final = _HEADER.size


def encode_frame(payload: bytes, *, limit_bytes: int) -> bytes:
    """The frame for a payload. Raises `FrameError` when it is longer than the limit; nothing is sent then."""
    return frame_header(len(payload), limit_bytes=limit_bytes) + payload


def frame_header(length: int, *, limit_bytes: int) -> bytes:
    """What stands before a payload of that length. Raises `FrameError` as `encode_frame` does."""
    if length > limit_bytes:
        msg = (
            f"a frame of {length} bytes exceeds limits.frame_bytes = {limit_bytes}; nothing was sent: "
            "raise the limit, or send less at once"
        )
        raise FrameError(msg, is_unsent=True)
    return _HEADER.pack(VERSION, length)


def announced_length(data: bytes | bytearray, start: int = 0, *, limit_bytes: int) -> int:
    """The length of the payload behind the header at `start`, of which `HEADER_BYTES` must be there.

    Raises `FrameError` when the stream is of another version or announces a frame beyond the limit; the stream cannot
    be used after that.
    """
    version, length = _HEADER.unpack_from(data, start)
    if version != VERSION:
        msg = f"a frame of version {version} came where {VERSION} is spoken: the channel is unusable"
        raise FrameError(msg)
    if length > limit_bytes:
        msg = f"a frame of {length} bytes was announced, the limit is {limit_bytes}: refused"
        raise FrameError(msg)
    return int(length)


class FrameDecoder:
    """Cuts a stream of bytes into payloads, whatever pieces it arrives in."""

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take what was read and yield each payload that is complete.

        Raises `FrameError` when the stream is of another version or announces a frame beyond the limit; the
        stream cannot be used after that.
        """
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _HEADER.size:
                length = announced_length(self._buffer, start, limit_bytes=self._limit_bytes)
                end = start + _HEADER.size + length
                if len(self._buffer) < end:
                    return
                payload = bytes(self._buffer[start + _HEADER.size : end])
                start = end
                yield payload
        finally:
            del self._buffer[:start]
