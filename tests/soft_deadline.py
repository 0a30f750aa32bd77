"""The soft deadline of a worker, for a while in this process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.workers.deadline import SoftDeadline


@contextmanager
def installed() -> Iterator[SoftDeadline]:
    """It has SIGALRM until the block is over."""
    before = signal.getsignal(signal.SIGALRM)
    deadline = SoftDeadline(usable=True)
    deadline.install()
    try:
        yield deadline
    finally:
        deadline.disarm()
        signal.signal(signal.SIGALRM, before)
