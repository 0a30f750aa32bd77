"""Large results: never half of one in silence, and never the whole of one in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psutil
import pytest
from sqlalchemy import Table, insert, select, text

from penstock.app.context import Context
from penstock.app.outcomes import Raised
from penstock.errors import ConnectionMisused
from tests.workers.databases.place import Place, put, store
from tests.workers.databases.test_transactions import Base, Item

ITEMS: Table = Base.metadata.tables["item"]
COUNT = 5_000


def flush(ctx: Context) -> None:
    ctx.session.add(Item(id=COUNT + 1, name="new"))
    ctx.session.flush()


def statement(ctx: Context) -> None:
    ctx.connection.execute(text("UPDATE item SET n = 1 WHERE id = 1"))


def commit(ctx: Context) -> None:
    ctx.connection.commit()


@pytest.mark.parametrize("meanwhile", [flush, statement, commit])
def test_whatever_else_is_done_while_a_streamed_result_is_open_raises_and_commits_nothing(
    place: Place, meanwhile: Callable[[Context], None]
) -> None:
    place.fill(COUNT)
    read: list[int] = []

    def handler(_: int, ctx: Context) -> None:
        for item in ctx.session.scalars(select(Item).execution_options(yield_per=500)):
            read.append(item.id)
            if len(read) == 1000:
                meanwhile(ctx)

    with place.worker(handler, store) as worker:
        result = worker.run()
        assert isinstance(result.error, ConnectionMisused)
        assert "ctx.stream" in str(result.error)
        assert isinstance(result.outcome, Raised)
        assert worker.run(COUNT + 7, "q1").verdict == "acked"
    assert len(read) == 1000
    assert len(place.rows()) == COUNT + 1
    assert all(n == 0 for *_, n in place.rows())


def test_a_streamed_result_that_was_read_or_dropped_is_in_nobodys_way(place: Place) -> None:
    place.fill(COUNT)

    def handler(_: int, ctx: Context) -> None:
        streamed = select(ITEMS.c.id).execution_options(stream_results=True)
        rows = ctx.connection.execute(streamed)
        assert len(list(rows)) == COUNT
        put(ctx, COUNT + 1)
        half = ctx.connection.execute(streamed)
        assert half.fetchone() is not None
        half.close()
        put(ctx, COUNT + 2)
        still_open = ctx.connection.execute(streamed)
        assert still_open.fetchone() is not None

    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert len(place.rows()) == COUNT + 2


def test_a_driver_that_is_asked_past_sqlalchemy_refuses_too(mariadb_place: Place) -> None:
    from pymysql.cursors import SSCursor

    mariadb_place.fill(COUNT)

    def handler(_: int, ctx: Context) -> None:
        raw: Any = ctx.connection.connection.driver_connection
        cursor = raw.cursor(SSCursor)
        cursor.execute("SELECT id FROM item")
        cursor.fetchone()
        raw.cursor().execute("SELECT 1")

    with mariadb_place.worker(handler, store) as worker:
        assert isinstance(worker.run().error, ConnectionMisused)
        assert worker.run(COUNT + 1, "q1").verdict == "acked"


def test_a_stream_has_a_connection_of_its_own_and_the_workers_stays_free(place: Place) -> None:
    place.fill(COUNT)
    counts: list[int] = []

    def handler(_: int, ctx: Context) -> None:
        with ctx.stream("SELECT id FROM item WHERE id > :least ORDER BY id", {"least": 0}) as rows:
            for row in rows:
                ctx.connection.execute(text("UPDATE item SET n = n + 1 WHERE id = :id"), {"id": row.id})
                if row.id == 1 and place.server is not None:
                    counts.append(len(place.connections))
        if place.server is not None:
            counts.append(len(place.connections_once(1)))

    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert counts == ([] if place.server is None else [2, 1])
    assert {n for *_, n in place.rows()} == {1}


def test_a_stream_reads_in_bounded_memory(place: Place) -> None:
    rows = 80_000
    with place.outside() as other:
        other.execute(insert(ITEMS), [{"id": number, "name": "x" * 190, "n": 0} for number in range(rows)])
        other.commit()
    grown: list[int] = []
    process = psutil.Process()

    def handler(_: int, ctx: Context) -> None:
        # What a driver in C holds is in nobody's heap but the process's.
        before = process.memory_info().rss
        count = 0
        for count, _row in enumerate(ctx.stream(select(ITEMS)), 1):
            if count % 10_000 == 1:
                grown.append(process.memory_info().rss - before)
        assert count == rows

    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    # The whole of it is 20 MB and more.
    assert max(grown) < 8 * 2**20


def test_a_stream_cannot_write(place: Place) -> None:
    place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        ctx.stream("DELETE FROM item")

    with place.worker(handler) as worker:
        assert worker.run().verdict == "retried"
    assert len(place.rows()) == 1


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_a_stream_that_is_left_open_ends_with_its_message(server_place: Place, how: str) -> None:
    server_place.fill(COUNT)
    kept: list[object] = []

    def handler(_: int, ctx: Context) -> None:
        rows = ctx.stream(select(ITEMS))
        next(rows)
        kept.append(rows)
        if how == "raises":
            raise ValueError

    with server_place.worker(handler) as worker:
        worker.run()
        assert len(server_place.connections_once(1)) == 1
        worker.run()
        assert len(server_place.connections_once(1)) == 1


def test_more_streams_at_once_than_the_settings_allow_are_refused_in_words(place: Place) -> None:
    place.fill(COUNT)

    def handler(_: int, ctx: Context) -> None:
        with ctx.stream(select(ITEMS)) as first:
            next(first)
            ctx.stream(select(ITEMS))

    with place.worker(handler) as worker:
        assert "database.stream_connections is 1" in str(worker.run().error)
    with place.worker(handler, stream_connections=2) as worker:
        assert worker.run().verdict == "acked"
