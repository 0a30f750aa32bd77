"""The soft deadline of a worker, for a while in this process."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.workers.deadline import SoftDeadline


@contextmanager
def installed() -> Iterator[SoftDeadline]:
    """It has SIGALRM until the block is over."""
    before, hook = signal.getsignal(signal.SIGALRM), sys.unraisablehook
    deadline = SoftDeadline(usable=True)
    deadline.install()
    try:
        yield deadline
    finally:
        deadline.disarm()
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
        SoftDeadline.installed = None
