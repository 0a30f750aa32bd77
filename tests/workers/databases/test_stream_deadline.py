"""A deadline amid `ctx.stream` is what the message failed for, and leaves no connection behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from penstock.app.context import Context
from penstock.errors import DeadlineExceeded
from penstock.workers.deadline import SoftDeadline
from tests import soft_deadline
from tests.workers.databases.place import Place
from tests.workers.databases.test_streams import COUNT, ITEMS

LEGACY = "tests.workers.databases.legacy"
WAYS = {"own": {}, "adopted": {"engine": f"{LEGACY}:engine"}}


@pytest.fixture
def deadline() -> Iterator[SoftDeadline]:
    with soft_deadline.installed() as installed:
        yield installed


@pytest.fixture(params=WAYS)
def streaming_place(
    request: pytest.FixtureRequest, server_place: Place, monkeypatch: pytest.MonkeyPatch
) -> Place:
    monkeypatch.setenv("LEGACY_URL", server_place.url)
    monkeypatch.delitem(sys.modules, LEGACY, raising=False)
    server_place.fill(COUNT)
    return Place(server_place.kind, server_place.url, server_place.server, settings=WAYS[request.param])


# Drivers' words for what is thrown away with its connection, or was cut off while it was made.
@pytest.mark.filterwarnings("ignore:.*was deleted while still open:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wherever_it_comes_it_is_the_reason_and_no_connection_stays(
    streaming_place: Place, deadline: SoftDeadline, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(after_ms: int, ctx: Context) -> None:
        deadline.arm(after_ms / 1000)
        while True:
            for _row in ctx.stream(select(ITEMS)):
                pass

    with streaming_place.worker(handler) as worker:
        for after_ms in range(2, 22):
            assert isinstance(worker.run(after_ms).error, DeadlineExceeded)
        assert len(streaming_place.connections_once(1)) == 1
    if not streaming_place.settings:
        # What an application's own class of connection finds when it is cut off, SQLAlchemy logs.
        assert "sequence number" not in caplog.text
