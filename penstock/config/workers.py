"""[workers]: the processes that run handlers."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from penstock.config.section import Section


class WorkersSection(Section):
    """Slots and what bounds them."""

    processes: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=0, le=1024)
    """Slots; 0 serves async handlers only."""
    start_method: Literal["forkserver", "spawn"] = "forkserver"
    """How a worker process is started; forkserver boots in a tenth of the time."""
    recycle_messages: int = Field(default=0, ge=0)
    """A slot is replaced after so many messages; 0 is never."""
    recycle_mib: int = Field(default=0, ge=0)
    """A slot is replaced once its resident memory exceeds so many MiB; 0 is never."""
    kill_after_s: float = Field(default=5.0, ge=0)
    """A handler that is still running so long after its deadline is killed with its process."""
    crash_attempts: int = Field(default=3, ge=1)
    """A message that killed so many workers becomes a dead letter."""
    stop_timeout_s: float = Field(default=5.0, gt=0)
    """A worker that does not end within so long after its last message is killed."""
