"""What a check found: words for each queue, and the problems."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.cli.exits import Exit, exit_of
from penstock.errors import PenstockError


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that would stop the service, or a handler, from working."""

    words: str
    exit: Exit

    @classmethod
    def of(cls, error: PenstockError) -> Problem:
        """The problem that `penstock run` would end with."""
        return cls(str(error), exit_of(error))


@dataclass(slots=True)
class BusFindings:
    """What the bus says."""

    where: str
    """Bus, place and login in words."""
    queues: dict[str, str] = field(default_factory=dict)
    """A queue's state in some words."""
    problems: list[Problem] = field(default_factory=list)
    permissions: list[tuple[str, str]] = field(default_factory=list)
    """Broker permissions that are needed: kind and regular expression."""
    commands: list[str] = field(default_factory=list)
    """Shell commands that grant the permissions."""
    creating: list[str] = field(default_factory=list)
    """Shell commands that create what `declare=False` misses."""
