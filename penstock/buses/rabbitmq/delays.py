"""Which delay queue a delay takes: one fixed time to live each, in powers of two, shared by all handlers.

A time to live of each message's own would hold every shorter one behind a longer one (head of line); levels do not.
The level is the next one up, so a message is never early and at most twice as late as asked for.
"""

from __future__ import annotations

import math
from typing import Final

#: 64 ms; shorter delays take it.
FIRST_LEVEL: Final = 6
#: 12 days, below the 2**32 ms that RabbitMQ takes.
LAST_LEVEL: Final = 30


def level_ms(delay_s: float) -> int:
    """Milliseconds of the delay queue for a delay in seconds."""
    exponent = math.ceil(math.log2(max(1.0, delay_s * 1000)))
    return 1 << max(FIRST_LEVEL, min(LAST_LEVEL, exponent))
