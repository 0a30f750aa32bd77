"""Where a bus says what it met: in a service's log, and in any other program wherever that sends its logging.

structlog without configuration prints to stdout, which belongs to the program that publishes.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

import structlog


class BusLog:
    """Writes through structlog where the program has configured it, else through the standard library's logging."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, **fields: Any) -> None:
        """What somebody who looks wants to know."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """What the bus copes with, and somebody should know."""
        self._write(logging.WARNING, event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """What nobody expected, with the exception that is being handled."""
        self._write(logging.ERROR, event, {**fields, "exception": traceback.format_exc()})

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if structlog.is_configured():
            structlog.get_logger(self._name).log(level, event, **fields)
        else:
            words = " ".join(f"{name}={value}" for name, value in fields.items())
            logging.getLogger(self._name).log(level, "%s: %s", event, words)
