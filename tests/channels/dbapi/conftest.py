"""A database behind the channel, and this process as a worker of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.channels.dbapi.served import Served, served


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def service(database: Path) -> Iterator[Served]:
    with served(database) as made:
        yield made
