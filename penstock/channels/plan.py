"""What a worker is told before its first message."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Crosses the process border once, by the executor's own pipe, which is ours alone."""

    app: str
    """`module:attribute`; imported afresh in every worker."""
    queues: tuple[str, ...]
    """Queues of the handlers served, in the order in which jobs number them."""
    slot: str
    database: DatabaseSection
    limits: LimitsSection
    start_method: str
    log_level: str
    workers: int = 1
    """How many there are of it: each opens connections to one and the same database."""
    in_process: bool = False
    """True for --inline: the handlers run in a thread of the reactor's process."""
