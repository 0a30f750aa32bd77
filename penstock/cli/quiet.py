"""The log of a command that is no service: warnings of ours on stderr, and nothing of the libraries."""

from __future__ import annotations

import logging
from typing import Any

import structlog

from penstock.cli.words import say, secrets


class _Stderr:
    """structlog's logger at the end of the chain."""

    def msg(self, message: str) -> None:
        say(message)

    log = debug = info = warning = error = critical = exception = fatal = failure = msg


def log_warnings_only() -> None:
    """Until `configure_logging` says otherwise; what a library has to say comes in our errors' words."""

    def stderr(*_arguments: Any) -> _Stderr:
        return _Stderr()

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            secrets.processor,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=stderr,
        cache_logger_on_first_use=False,
    )
    logging.getLogger().addHandler(logging.NullHandler())
