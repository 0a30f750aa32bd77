"""How many unsettled deliveries each handler may have out: prefetch is the back-pressure.

Measured with an empty handler: 4 gave 1,070 messages a second, 16 gave 4,700, 64 gave 17,600. A slow handler gets
less: what waits here longer than the broker's consumer timeout is taken away from us, with its AMQP channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from penstock.app.handlers import AnyHandler
from penstock.errors import ConfigurationError

LEAST: Final = 2
MOST: Final = 256
#: Queue wait and run time together stay below this part of the broker's consumer timeout.
SAFE_PART: Final = 0.5


def share_prefetch(handlers: Sequence[AnyHandler], total: int) -> list[int]:
    """One number a handler: its own `prefetch`, else an equal share of `total`, between 2 and 256."""
    own = sum(handler.options.prefetch or 0 for handler in handlers)
    sharing = sum(1 for handler in handlers if handler.options.prefetch is None)
    share = max(LEAST, min(MOST, (total - own) // sharing)) if sharing else 0
    return [handler.options.prefetch or share for handler in handlers]


def safe_prefetch(run_s: float, *, at_once: int, consumer_timeout_s: float) -> int:
    """The most that can wait for `at_once` runs of `run_s` seconds each and still be settled in time; 1 at the least."""
    if run_s <= 0:
        return 65535
    return int(max(1.0, min(65535.0, SAFE_PART * consumer_timeout_s / run_s * at_once)))


def refuse_endless(handlers: Sequence[AnyHandler], *, kill_after_s: float, consumer_timeout_s: float) -> None:
    """Refuse deadlines that the broker would not wait for: it takes the message away while the handler runs.

    Raises `ConfigurationError` naming every such handler, before anything is opened.
    """
    endless = [
        f"{handler.name} on queue {handler.queue.name!r} (timeout={handler.options.timeout_s:g})"
        for handler in handlers
        if handler.options.timeout_s is not None
        and handler.options.timeout_s + kill_after_s >= consumer_timeout_s
    ]
    if endless:
        msg = (
            f"the broker takes back what is not settled within bus.consumer_timeout_s={consumer_timeout_s:g} s and hands "
            f"it out again, and these handlers may run longer, until their timeout and workers.kill_after_s="
            f"{kill_after_s:g} s: {'; '.join(endless)}; lower their timeout, or raise consumer_timeout on the broker "
            "and bus.consumer_timeout_s with it"
        )
        raise ConfigurationError(msg)
