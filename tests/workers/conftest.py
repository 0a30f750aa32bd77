"""A worker's own connection on a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.own_connection import Worker, worker_on


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def worker(path: Path) -> Iterator[Worker]:
    with worker_on(path, busy_timeout_s=5) as worker:
        yield worker
