"""[service]: how the reactor itself behaves."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from penstock.config.section import Section


class ServiceSection(Section):
    """Stop, the log, and when the service is not well."""

    drain_seconds: float = Field(default=30.0, ge=0)
    """How long a stop waits for handlers that run before it hands their messages back."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe line that is written."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """auto: console on a terminal, JSON lines otherwise."""
    blocked_seconds: float = Field(default=5.0, ge=0.1)
    """A loop that has not turned for so long is blocked: `/live` says so, and the log shows where it stands."""
    health_file: str | None = None
    """Where a running service notes that it is live; `penstock check --live` reads it. None: in the temporary folder."""
