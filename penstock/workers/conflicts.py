"""How often, and after which wait, a handler runs again because another transaction was in its way.

Here in the worker, and at once: the one that was in the way has committed by now. A message that went back to its
queue would wait for seconds, and meet the same neighbours.
"""

from __future__ import annotations

from random import Random
from typing import Final

#: After so many further runs in a row the conflict is the message's own failure, and charged.
MOST_RERUNS: Final = 3
_FIRST_WAIT_S: Final = 0.02


def wait_before_rerun(rerun: int, *, left_s: float | None, random: Random) -> float | None:
    """Seconds to wait before the run after `rerun` conflicts (1 for the first); None when there is none.

    `left_s` is what is left of the handler's time. Full jitter: two that met would meet again in step.
    """
    if rerun > MOST_RERUNS:
        return None
    wait_s = random.uniform(0, _FIRST_WAIT_S * 2**rerun)
    return None if left_s is not None and wait_s >= left_s else wait_s
