"""What every log line of a worker says of the delivery that is running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock import App
from penstock.testing import Worker


def test_the_lines_of_a_delivery_share_its_fields_and_the_next_one_has_its_own() -> None:
    app = App()
    seen: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []

    @app.handler("orders")
    def note(payload: int) -> None:
        seen.append((executor.fields(), executor.fields()))

    with Worker(app) as worker:
        assert worker._worker is not None
        executor = worker._worker.executor
        worker.run("orders", 1, id="a").raise_for_failure()
        between = executor.fields()
        worker.run("orders", 2, id="b", attempt=3).raise_for_failure()

    assert all(first is second for first, second in seen)
    handler = {"slot": "test", "queue": "orders", "handler": note.name}
    assert [dict(first) for first, _ in seen] == [
        {**handler, "message_id": "a", "attempt": 1},
        {**handler, "message_id": "b", "attempt": 3},
    ]
    assert between == {"slot": "test"}
