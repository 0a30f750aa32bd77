"""One message, one transaction, one connection: the same on each database."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import Integer, select, text
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from penstock.app.context import Context
from penstock.app.outcomes import Raised
from penstock.errors import TransactionUndone
from tests.workers.databases.place import Place, put, store


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str]
    n: Mapped[int] = mapped_column(default=0)


def test_what_a_handler_wrote_is_committed_when_it_returns_and_undone_when_it_raises(place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        if payload == 2:
            raise ValueError("no")

    with place.worker(handler) as worker:
        assert [worker.run(number).verdict for number in (1, 2, 3)] == ["acked", "retried", "acked"]
    assert [number for number, *_ in place.rows()] == [1, 3]


def test_connection_and_session_are_one_transaction(place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        ctx.session.add(Item(id=payload, name="by session"))
        put(ctx, payload + 1)
        assert len(list(ctx.session.scalars(select(Item)))) == 2

    with place.worker(handler) as worker:
        worker.run(1)
    assert [name for _, name, _ in place.rows()] == ["by session", "item"]


def test_each_message_sees_what_others_have_committed_before_it(place: Place) -> None:
    seen: list[int] = []

    def count(_: int, ctx: Context) -> None:
        seen.append(ctx.connection.execute(text("SELECT count(*) FROM item")).scalar_one())

    with place.worker(count) as worker:
        worker.run()
        place.fill(3)
        worker.run()
    assert seen == [0, 3]


def test_one_connection_serves_every_message_and_says_goodbye_at_the_end(server_place: Place) -> None:
    seen: list[list[int]] = []

    def look(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        seen.append(server_place.connections)

    with server_place.worker(look) as worker:
        before = server_place.connections
        for number in range(5):
            worker.run(number)
    assert len(before) == 1
    assert seen == [before] * 5
    assert server_place.connections_once(0) == []


def test_the_server_counts_no_broken_connection_after_a_stop(own_place: Place) -> None:
    def aborted() -> object:
        if own_place.kind == "mariadb":
            return own_place.running.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")
        return own_place.running.log.count("unexpected EOF") + own_place.running.log.count(
            "could not receive data"
        )

    before = aborted()
    with own_place.worker(store) as worker:
        worker.run(1)
    assert aborted() == before


def test_an_error_that_a_handler_catches_never_commits_half_a_message_in_silence(place: Place) -> None:
    place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 2)
        with suppress(IntegrityError):
            put(ctx, 1)

    with place.worker(handler) as worker:
        result = worker.run()
    if place.kind == "postgresql":
        # There the first error has undone everything; COMMIT would answer ROLLBACK, and nobody would hear of it.
        assert isinstance(result.outcome, Raised)
        assert result.outcome.charged
        assert "begin_nested" in result.outcome.failure.text
        assert len(place.rows()) == 1
    else:
        assert result.verdict == "acked"
        assert len(place.rows()) == 2


@pytest.mark.parametrize("commit", ["COMMIT", "-- so\n/* it /* is */ */ end", "PREPARE TRANSACTION 'x'"])
def test_a_commit_by_text_is_no_way_round(postgresql_place: Place, commit: str) -> None:
    postgresql_place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 2)
        with suppress(IntegrityError):
            put(ctx, 1)
        ctx.connection.exec_driver_sql(commit)
        put(ctx, 3)

    with postgresql_place.worker(handler) as worker:
        outcome = worker.run().outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type.endswith(TransactionUndone.__name__)
    assert len(postgresql_place.rows()) == 1


def test_a_flush_that_failed_and_was_caught_commits_nothing_half(place: Place) -> None:
    place.fill(1)

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, 2)
        ctx.session.add(Item(id=1, name="there already"))
        with suppress(IntegrityError):
            ctx.session.flush()
        if payload == 2:
            ctx.session.rollback()
        put(ctx, 3)

    with place.worker(handler) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert outcome.failure.type.endswith(TransactionUndone.__name__)
        assert "IntegrityError" in outcome.failure.traceback
        assert [number for number, *_ in place.rows()] == [1]
        assert worker.run(2).verdict == "acked"
    assert [number for number, *_ in place.rows()] == [1, 3]


def test_an_error_inside_a_savepoint_costs_the_savepoint(place: Place) -> None:
    place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        put(ctx, 2)
        with suppress(IntegrityError), ctx.connection.begin_nested():
            put(ctx, 1)

    with place.worker(handler) as worker:
        assert worker.run().verdict == "acked"
    assert len(place.rows()) == 2


def test_an_error_that_a_savepoint_undid_is_not_why_a_later_commit_is_refused(
    postgresql_place: Place,
) -> None:
    postgresql_place.fill(1)

    def handler(_: int, ctx: Context) -> None:
        with suppress(IntegrityError), ctx.connection.begin_nested():
            put(ctx, 1)
        with suppress(ProgrammingError):
            ctx.connection.execute(text("SELECT * FROM nowhere"))

    with postgresql_place.worker(handler) as worker:
        outcome = worker.run().outcome
    assert isinstance(outcome, Raised)
    assert outcome.failure.type.endswith(TransactionUndone.__name__)
    assert "UndefinedTable" in outcome.failure.traceback
    assert "UniqueViolation" not in outcome.failure.traceback
