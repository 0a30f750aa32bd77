"""A working directory for each test, or a bus of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """With an application, on the embedded bus and SQLite; a loop counts as blocked after 0.5 s."""
    return Folder(tmp_path, PENSTOCK_SERVICE__BLOCKED_SECONDS="0.5")


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty bus of each kind."""
    if request.param == "embedded":
        return f"sqlite:///{tmp_path / 'bus.db'}"
    url: str = request.getfixturevalue("amqp_url")
    return url
