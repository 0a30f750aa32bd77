"""Real worker processes that are cut short in the middle of a stream: the next message finds a clean channel."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.testing import embedded_service
from tests.channels.conftest import until
from tests.channels.db import streaming_application
from tests.channels.db.databases import Case, open_results, open_transactions
from tests.channels.db.series import metadata

ADDRESS = f"{streaming_application.__name__}:app"


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[DatabaseService]:
    """Those that were made, so that a test may look into the running one."""
    made: list[DatabaseService] = []
    begin = DatabaseService.start

    async def noting(service: DatabaseService) -> None:
        made.append(service)
        await begin(service)

    monkeypatch.setattr(DatabaseService, "start", noting)
    return made


@pytest.mark.parametrize("queue", ["cut.short", "killed", "forgetful", "cancelled"])
async def test_nothing_is_left_and_the_next_message_finds_a_clean_channel(
    each: Case, queue: str, tmp_path: Path, services: list[DatabaseService]
) -> None:
    await asyncio.to_thread(metadata.create_all, each.engine)
    job: dict[str, Any] = {"kind": each.kind, "first": str(tmp_path / "first")}
    async with embedded_service(ADDRESS, database=each.url, processes=1) as service:
        (db,) = services
        await service.client.publish(queue, job)
        is_dead = queue in ("cut.short", "cancelled")
        await service.wait_for(dead=int(is_dead), acked=int(not is_dead))
        await until(lambda: open_results(db) == 0)
        await until(lambda: open_transactions(db) == 0)
        await service.client.publish("clean", job)
        await service.wait_for(dead=int(is_dead), acked=1 + int(not is_dead))
        if is_dead:
            (letter,) = await service.dead_letters(queue)
            assert "DeadlineExceeded" in str(letter.headers) or "timeout" in str(letter.headers)
    if queue == "killed":
        assert (tmp_path / "first").exists()
