"""Which messages may have killed a whole service, and what is done about it. Pure.

The one who dies writes nothing, so that a run that may end the service has to be counted before it begins. A broker's
count of deliveries is a hint (network cuts raise it too), and a classic queue has none: there the start is counted on a
copy. From `SUSPECT_DELIVERIES` on a message is set apart: it is published again, marked, and runs while no other suspect
does. What comes back with that mark and as redelivered has ended its service, or was handed to one that ended at that
moment.

| marked alone | redelivered | counted   | by the bus | verdict    |
|--------------|-------------|-----------|------------|------------|
| yes          | yes         |           |            | KILLED     |
| yes          | no          |           |            | RUNS_ALONE |
| no           |             | 3 or more |            | SUSPECT    |
| no           | yes         | less      | no         | UNCOUNTED  |
| no           |             | less      | yes        | CLEAR      |
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from penstock.buses.contract import Delivery

#: Deliveries before this one from which a message may have killed its service.
SUSPECT_DELIVERIES: Final = 3


class Suspicion(Enum):
    """What a delivery's past says of it."""

    CLEAR = auto()
    """It runs like all others."""
    UNCOUNTED = auto()
    """Nobody counts how often it comes back: we do, on a copy."""
    SUSPECT = auto()
    """Its next run has to be alone, and counted beforehand."""
    RUNS_ALONE = auto()
    """It is the copy that was counted: this run is that one."""
    KILLED = auto()
    """The run that was counted ended its service."""


def suspicion(delivery: Delivery) -> Suspicion:
    """What this delivery is suspected of."""
    history = delivery.history
    if history.alone:
        return Suspicion.KILLED if delivery.redelivered else Suspicion.RUNS_ALONE
    if max(delivery.delivery_count or 0, history.starts) >= SUSPECT_DELIVERIES:
        return Suspicion.SUSPECT
    if delivery.delivery_count is None:
        return Suspicion.UNCOUNTED
    return Suspicion.CLEAR
