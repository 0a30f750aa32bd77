"""Exit codes: the one table of them, and which exception means which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from penstock.errors import (
    BusUnavailable,
    ConfigurationError,
    HandlerError,
    PayloadError,
    PenstockError,
    PublishError,
    TopologyMismatch,
)


class Exit(IntEnum):
    """What the process ends with; a service manager restarts on 1 and 4, a person looks at the others."""

    OK = 0
    """Done; for `run` and `demo`: stopped in order."""
    NO = 1
    """The answer is no (a check found a problem, the service is not live, no such message), or an unexpected error."""
    USAGE = 2
    """The command line itself is wrong."""
    CONFIGURATION = 3
    """A setting, the application, a handler or a payload cannot be used."""
    BUS_UNAVAILABLE = 4
    """The bus cannot be reached, or refuses the login."""
    TOPOLOGY = 5
    """Queues exist with other arguments than their handlers declare, or are missing."""
    WORKERS = 6
    """The workers can never work: the application or its start hooks fail in them."""
    NOT_PUBLISHED = 7
    """The bus did not confirm a message."""
    INTERRUPTED = 130
    """Ctrl-C in a command that runs no service."""


#: In order: the first that fits.
_TABLE: Final[tuple[tuple[type[PenstockError], Exit], ...]] = (
    (TopologyMismatch, Exit.TOPOLOGY),
    (PublishError, Exit.NOT_PUBLISHED),
    (BusUnavailable, Exit.BUS_UNAVAILABLE),
    (ConfigurationError, Exit.CONFIGURATION),
    (HandlerError, Exit.CONFIGURATION),
    (PayloadError, Exit.CONFIGURATION),
)

HELP: Final = "Exit codes: " + " · ".join(
    f"{code.value} {words}"
    for code, words in (
        (Exit.OK, "done, stopped in order"),
        (Exit.NO, "no, or unexpected"),
        (Exit.USAGE, "usage"),
        (Exit.CONFIGURATION, "configuration, application or payload"),
        (Exit.BUS_UNAVAILABLE, "bus unavailable"),
        (Exit.TOPOLOGY, "queues exist otherwise"),
        (Exit.WORKERS, "workers can never work"),
        (Exit.NOT_PUBLISHED, "not confirmed"),
        (Exit.INTERRUPTED, "interrupted"),
    )
)


def exit_of(error: PenstockError) -> Exit:
    """The code for an error that ends a command."""
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return code
    return Exit.NO
