"""What the service tests share: every one of them runs on both buses."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty bus of each kind."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'bus.db'}"
    url: str = request.getfixturevalue("amqp_url")
    return url
