"""The handlers one message at a time, without a broker: the real decoding, transaction and decision."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from orders import app, orders, store, turnover
from sqlalchemy import Table, create_engine, select

from penstock.testing import Worker, embedded_service


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database; the worker's start hook makes the tables where the settings say."""
    url = f"sqlite:///{tmp_path / 'app.db'}"
    monkeypatch.setenv("PENSTOCK_DATABASE__URL", url)
    return url


@pytest.fixture
def worker(database: str) -> Iterator[Worker]:
    with Worker(app, database=database) as worker:
        yield worker


def rows(database: str, table: Table) -> list[tuple[object, ...]]:
    engine = create_engine(database)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(select(table))]
    finally:
        engine.dispose()


def test_an_order_becomes_a_row_and_then_a_message(worker: Worker, database: str) -> None:
    result = worker.run(store, {"id": 1, "total": "9.99", "customer": "Ada"}).raise_for_failure()

    assert rows(database, orders) == [(1, "Ada", Decimal("9.99"))]
    (sent,) = result.published
    assert (sent.queue, sent.payload) == ("orders.stored", {"order_id": 1, "customer": "Ada", "cents": 999})


def test_an_order_that_comes_twice_is_stored_once(worker: Worker, database: str) -> None:
    worker.run(store, {"id": 1, "total": "9.99"}).raise_for_failure()
    worker.run(store, {"id": 1, "total": "9.99"}, redelivered=True).raise_for_failure()

    assert len(rows(database, orders)) == 1


def test_a_negative_total_is_a_dead_letter_with_its_reason(worker: Worker, database: str) -> None:
    result = worker.run(store, {"id": 1, "total": "-1"})

    assert result.verdict == "dead lettered"
    assert "order 1 has a negative total" in result.reason
    assert rows(database, orders) == []


def test_a_body_that_is_no_order_is_never_tried_again(worker: Worker) -> None:
    result = worker.run(store, body=b'{"id": "one"}', content_type="application/json")

    assert result.verdict == "dead lettered"
    assert "id: Input should be a valid integer" in result.reason


def test_an_order_is_counted_once_however_often_it_comes(worker: Worker, database: str) -> None:
    for order, cents in ((1, 999), (2, 1), (1, 999)):
        worker.run(
            "orders.stored", {"order_id": order, "customer": "Ada", "cents": cents}
        ).raise_for_failure()

    assert rows(database, turnover) == [("Ada", 1000)]


@pytest.mark.asyncio
async def test_the_whole_service_from_a_publish_to_the_turnover(database: str) -> None:
    async with embedded_service(app, database=database) as service:
        await service.client.publish("orders.created", {"id": 1, "total": "9.99", "customer": "Ada"})
        await service.client.publish("orders.created", {"id": "one"})

        await service.wait_for(acked=2, dead=1)

        (letter,) = await service.dead_letters("orders.created")
    assert rows(database, turnover) == [("Ada", 999)]
    assert "id: Input should be a valid integer" in str(letter.headers["x-penstock-reason"])
