"""A worker's own connection on a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.channels.dbapi.link import Link
from tests.workers.own_connection import Worker, worker_on


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def worker(path: Path) -> Iterator[Worker]:
    with worker_on(path, busy_timeout_s=5) as worker:
        yield worker


@pytest.fixture
def crossed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods called over the channel."""
    methods: list[str] = []
    call = Link.call

    def noted(link: Link, method: str, arguments: object, result: Any) -> Any:
        methods.append(method)
        return call(link, method, arguments, result)

    monkeypatch.setattr(Link, "call", noted)
    return methods
