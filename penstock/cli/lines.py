"""A file's lines as they come, read beside the loop: a pipe that is silent for an hour must not stop the heartbeats."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Final, TypeAlias

from penstock.errors import ConfigurationError

STDIN: Final = "-"
#: A pipe hands over what it has; a file so much at a time.
READ_BYTES: Final = 64 * 1024

#: Line numbers begin with 1.
Numbered: TypeAlias = tuple[int, bytes]


class LongLine(Exception):  # noqa: N818 - the fact
    """Raised when a line is longer than a message may be; `number` is its line number."""

    def __init__(self, number: int, limit_bytes: int) -> None:
        super().__init__(f"it is longer than limits.body_bytes, {limit_bytes} bytes")
        self.number = number


class Lines:
    """Reads a file, or stdin for `-`; `chunks` gives its lines.

    Raises `ConfigurationError` when the file cannot be opened.
    """

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.is_stdin = str(path) == STDIN
        self._limit_bytes = limit_bytes
        try:
            self._fd = sys.stdin.fileno() if self.is_stdin else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size_bytes: int | None = None if self.is_stdin else os.fstat(self._fd).st_size or None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}; nothing was published") from error
        # One chunk waits while another is published.
        self._chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(1)
        self._loop = asyncio.get_running_loop()
        # A daemon that reads the descriptor itself: nothing else ends a read of a silent pipe, and Python's own
        # stdin would be locked when the program ends.
        self._thread = threading.Thread(target=self._read, name="penstock-lines", daemon=True)

    async def chunks(self) -> AsyncIterator[list[Numbered]]:
        """Lists of whole lines with their numbers. Raises `LongLine`, `OSError`."""
        self._thread.start()
        number, rest = 0, b""
        while True:
            data = await self._chunks.get()
            if isinstance(data, OSError):
                raise data
            lines = (rest + data).split(b"\n")
            # The last line of a file may have no end.
            rest = lines.pop() if data else b""
            if lines:
                yield list(enumerate(lines, number + 1))
                number += len(lines)
            if len(rest) > self._limit_bytes:
                raise LongLine(number + 1, self._limit_bytes)
            if not data:
                return

    def _read(self) -> None:
        # The loop may end while we wait: then nobody wants the rest.
        with contextlib.suppress(RuntimeError, CancelledError):
            while True:
                try:
                    data: bytes | OSError = os.read(self._fd, READ_BYTES)
                except OSError as error:
                    data = error
                asyncio.run_coroutine_threadsafe(self._chunks.put(data), self._loop).result()
                if not data or isinstance(data, OSError):
                    break
        if not self.is_stdin:
            os.close(self._fd)
