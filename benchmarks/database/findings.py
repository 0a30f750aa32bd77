"""What a part of the benchmark found: a line of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from benchmarks.database.machine import Machine

T = TypeVar("T")
#: No worker has less than that of its share.
SHARE: Final = 0.5


@dataclass(frozen=True)
class Effort:
    """How much is measured; a quick run shows that the benchmark works, and its figures mean nothing."""

    rounds: int
    seconds: float
    """How long one contestant writes in one round."""
    rows: int
    """Of the large result."""
    workers: int
    """Of the many on few connections."""
    is_quick: bool


@dataclass(frozen=True)
class Finding:
    """One thing that was measured; `kept` is None for one of which nothing is promised."""

    part: str
    what: str
    measured: str
    promised: str = ""
    kept: bool | None = None


def at_least(part: str, what: str, ratio: float, promised: float, detail: str) -> Finding:
    """A ratio that may not be lower."""
    measured = f"{ratio:.2f} times ({detail})"
    return Finding(part, what, measured, f"at least {promised:g} times", ratio >= promised)


def at_most(part: str, what: str, figure: float, promised: float, detail: str) -> Finding:
    """A ratio that may not be higher."""
    return Finding(part, what, f"{figure:.3f} ({detail})", f"at most {promised:g}", figure <= promised)


def fair(part: str, what: str, ours: Sequence[float], theirs: Sequence[float]) -> Finding:
    """The smallest share of a worker, of what each would have had if all had had the same; the rival's for comparison."""
    share = statistics.median(ours)
    measured = f"{share:.2f} (own: {statistics.median(theirs):.2f})"
    return Finding(
        part, f"{what}: smallest share of a worker", measured, f"at least {SHARE:g}", share >= SHARE
    )


def in_turn(
    contestants: Mapping[str, Callable[[], T]], rounds: int, *, kept: int | None = None
) -> dict[str, list[T]]:
    """What each contestant came to in each round; who begins changes, so that nobody always has the warm machine.

    With `kept` only so many rounds count: those in which others used the machine least.
    """
    played: list[tuple[float, dict[str, T]]] = []
    for number in range(rounds):
        machine = Machine()
        names = list(contestants)[:: 1 if number % 2 == 0 else -1]
        round_ = {name: contestants[name]() for name in names}
        played.append((machine.others, round_))
    quiet = sorted(played, key=lambda one: one[0])[:kept]
    return {name: [round_[name] for _, round_ in quiet] for name in contestants}


def quotient(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the rounds' quotients: what slows the machine down for a while slows both of a round."""
    return statistics.median(our / their for our, their in zip(ours, theirs, strict=True))
