"""[limits]: sizes that nothing from outside may exceed."""

from __future__ import annotations

from pydantic import Field

from penstock.config.section import Section


class LimitsSection(Section):
    """Sizes in bytes and counts."""

    body_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """A longer body becomes a dead letter, unread."""
    frame_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Longest frame on a channel between a worker and the loop."""
