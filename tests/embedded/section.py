"""The settings of an embedded bus, for tests and the programs they start."""

from pathlib import Path

from pydantic import SecretStr

from penstock.config.bus import BusSection


def section_of(path: Path | str, *, lease_s: float = 60.0) -> BusSection:
    return BusSection(url=SecretStr(f"sqlite:///{path}"), lease_s=lease_s, connect_timeout_s=2.0)
