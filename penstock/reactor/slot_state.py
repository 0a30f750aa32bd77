"""The life of a slot as a table, and the two ways in which it never begins."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from penstock.errors import PenstockError


class SlotState(Enum):
    """Where a slot is in its life."""

    NEW = "new"
    BOOTING = "booting"
    IDLE = "idle"
    BUSY = "busy"
    CLOSING = "closing"
    DEAD = "dead"


TRANSITIONS: Final[Mapping[SlotState, frozenset[SlotState]]] = {
    SlotState.NEW: frozenset({SlotState.BOOTING}),
    SlotState.BOOTING: frozenset({SlotState.IDLE, SlotState.DEAD}),
    SlotState.IDLE: frozenset({SlotState.BUSY, SlotState.CLOSING, SlotState.DEAD}),
    SlotState.BUSY: frozenset({SlotState.IDLE, SlotState.DEAD}),
    SlotState.CLOSING: frozenset({SlotState.DEAD}),
    SlotState.DEAD: frozenset(),
}


class SlotFault(PenstockError):  # noqa: N818 - a fault of the application, told by its worker
    """Raised by `boot` when the worker says that it can never work, in the worker's words."""


class SlotDied(PenstockError):  # noqa: N818
    """Raised by `boot` when the process died before it was ready."""


def refusal_of(error: BaseException) -> str:
    """Why no process was started, in words."""
    if isinstance(error, EOFError):
        # The fork server died while it was asked, or was refused a process.
        return "the fork server got no process; is a limit reached, ulimit -u or pids.max of the cgroup?"
    return str(error)
