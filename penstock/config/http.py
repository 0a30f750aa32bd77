"""[http]: the endpoint that says how the service is."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Self

from pydantic import Field, SecretStr, model_validator

from penstock.config.section import Section


class HttpSection(Section):
    """Probes and metrics over HTTP; off until a port is set. Needs the extra `http`."""

    port: int | None = Field(default=None, ge=0, le=65535)
    """Where `/live`, `/ready` and `/metrics` answer; 0 takes a free port and logs it."""
    host: str = "127.0.0.1"
    """Address to listen on. One that other machines reach needs a token."""
    token: SecretStr | None = Field(default=None, min_length=16)
    """Who does not send it (`Authorization: Bearer …`) learns no more than the status code of `/live` and `/ready`."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.port is not None and self.token is None and not _is_loopback(self.host):
            msg = f"{self.host} can be reached from other machines: set http.token as well, or leave http.host at 127.0.0.1"
            raise ValueError(msg)
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
