"""What a worker writes to a log or prints goes over its channel, a whole line at a time.

Several processes that write to one descriptor tear each other's lines, and a reader that stalls would block the
handler; the loop has the only pen.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

from penstock.app.logs import standard_level
from penstock.channels.stub import MAX_LINE_CHARS, Channel
from penstock.errors import DeadlineExceeded

#: By the level's number: its name may be anything, with colours in it.
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")

Fields = Callable[[], Mapping[str, Any]]


class LogToChannel(logging.Handler):
    """The standard library's logging, handed to the loop with the delivery's fields."""

    def __init__(self, channel: Channel, fields: Fields) -> None:
        super().__init__()
        self._channel = channel
        self._fields = fields

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; one that cannot be formatted is told in the log, and fails no message.

        Raises `ChannelClosed` when the loop is gone.
        """
        try:
            text = self.format(record)
        except DeadlineExceeded:
            raise
        except Exception:  # noqa: BLE001 - whatever formatting raises; the handler only wanted to tell something
            self.handleError(record)
            return
        level = _LEVELS[standard_level(record.levelno) // 10 - 1]
        self._channel.line(level, text, {**self._fields(), "logger": record.name})


class PrintToChannel(io.TextIOBase):
    """Stands in for stdout and stderr in a worker process; a line leaves when it is whole."""

    def __init__(self, channel: Channel, fields: Fields, level: str) -> None:
        super().__init__()
        self._channel = channel
        self._fields = fields
        self._level = level
        self._rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What libraries ask before they print."""
        return "utf-8"

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Keep the text; each line leaves when it is whole."""
        lines = (self._rest + text).split("\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_CHARS:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._send(line)
        return len(text)

    def flush(self) -> None:
        """A line that is not whole yet waits for its rest."""

    def _send(self, line: str) -> None:
        if line:
            self._channel.line(self._level, line, {**self._fields(), "logger": "print"})


def structlog_processor(
    channel: Channel, fields: Fields
) -> Callable[[Any, str, MutableMapping[str, Any]], Any]:
    """The last processor of a worker's structlog: hands the event to the loop and drops it here."""

    def send(_logger: Any, level: str, event: MutableMapping[str, Any]) -> Any:
        text = event.pop("event", "")
        channel.line(level, text, {**fields(), **event})
        raise structlog.DropEvent

    return send
