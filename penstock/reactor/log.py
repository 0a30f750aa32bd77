"""The log: rendered on the loop, written by a thread of its own, so that a stalled reader never stops the service.

A pipe holds 64 KiB; with its reader asleep a write blocks for ever. The queue in between is bounded: when it is full
lines are dropped and counted, and the count is written when the reader is back.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor

from penstock.app.logs import escape_controls, quiet_libraries, standard_level
from penstock.channels.wire import Line
from penstock.config.service import ServiceSection
from penstock.reactor.noise import is_told_in_words, left_by_a_connection

MAX_LINES: Final = 10_000
#: A stop waits so long for the last lines.
CLOSE_WAIT_S: Final = 1.0
#: These have more than one line, and the renderer takes nothing but text for them.
_TRACEBACK_KEYS: Final = ("exception", "stack")
#: A handler's fields of these names would be overwritten by the log's own, or are no names that a logger takes.
_TAKEN_KEYS: Final = frozenset({"event", "level", "timestamp", "self"})


class LogWriter:
    """Writes lines to a descriptor from a daemon thread; `put` never blocks."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_LINES)
        self.dropped = 0
        """Lines lost because the reader stalled or is gone; written by whoever logs."""
        self._told = 0
        self._thread = threading.Thread(target=self._write, name="penstock-log", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, line: str) -> None:
        """Hand a line over; dropped and counted when the queue is full."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Wait a moment for the last lines; what a stalled reader has not taken by then is lost."""
        if not self._thread.is_alive():
            return
        try:
            self._lines.put(None, timeout=CLOSE_WAIT_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_WAIT_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            if self.dropped > self._told:
                line = f"{line}\n(penstock: {self.dropped - self._told} lines of this log were dropped, its reader was too slow)"
                self._told = self.dropped
            data = (line + "\n").encode("utf-8", "backslashreplace")
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                # The reader is gone; the service goes on without its log, and counts.
                self.dropped += 1


class _ToWriter:
    """structlog's logger at the end of the chain, and the standard library's handler's sink."""

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        self._writer.put(message)

    log = debug = info = warning = error = critical = exception = fatal = failure = msg


class _StandardLibrary(logging.Handler):
    """Lines of aio-pika, asyncio and other libraries, rendered like ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a fault of it is told in the log, and never raised into whoever logs."""
        if is_told_in_words(record):
            return
        if (error := left_by_a_connection(record)) is not None:
            structlog.get_logger(record.name).debug(
                "what waited on a connection to the broker ended with it",
                error=f"{type(error).__name__}: {error}",
            )
            return
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        try:
            number = standard_level(record.levelno)
            structlog.get_logger(record.name).log(number, record.getMessage(), **fields)
        except Exception:  # noqa: BLE001 - whatever formatting raises; the caller only wanted to tell something
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Tell where the faulty line was logged, through the writer: stderr itself may be stalled."""
        try:
            structlog.get_logger(record.name).error(
                "a line of the log could not be formatted: mend the call",
                logger=record.name,
                text=str(record.msg),
                where=f"{record.pathname}:{record.lineno}",
                error=repr(sys.exception()),
            )
        except Exception:  # noqa: BLE001 - the last resort, which raises nothing
            super().handleError(record)


def configure_logging(section: ServiceSection, *, fd: int = 2, extra: Processor | None = None) -> LogWriter:
    """Send structlog and the standard library's logging through one writer; console on a terminal, JSON lines otherwise.

    `extra` is one more processor before rendering. The writer is started; the caller closes it last.
    """
    is_console = section.log_format == "console" or (section.log_format == "auto" and os.isatty(fd))
    level = logging.getLevelNamesMapping()[section.log_level.upper()]
    writer = LogWriter(fd)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if extra is not None:
        processors.append(extra)
    if is_console:
        processors += [
            structlog.processors.format_exc_info,
            _escaped,
            structlog.dev.ConsoleRenderer(colors=os.isatty(fd)),
        ]
    else:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=repr, ensure_ascii=False),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _ToWriter(writer),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StandardLibrary()]
    root.setLevel(level)
    quiet_libraries()
    writer.start()
    return writer


def write_worker_line(line: Line) -> None:
    """Write a line that came over a worker's channel; fields named like the log's own get a `_` behind the name."""
    number = standard_level(logging.getLevelNamesMapping().get(line.level.upper(), logging.INFO))
    fields = {f"{name}_" if name in _TAKEN_KEYS else name: value for name, value in line.fields.items()}
    # Bound, because `log` has parameters whose names a handler may well give its fields.
    structlog.get_logger("worker").bind(**fields).log(number, line.event)


def _escaped(_logger: Any, _level: str, event: MutableMapping[str, Any]) -> EventDict:
    """Text from a message must not move a terminal's cursor or forge a line."""
    return {escape_controls(key): _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    if key in _TRACEBACK_KEYS:
        return escape_controls(value if isinstance(value, str) else repr(value))
    return escape_controls(value).replace("\n", "\\x0a") if isinstance(value, str) else value
