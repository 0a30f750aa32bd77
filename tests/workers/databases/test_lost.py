"""A server that restarts, kills the connection or times it out costs at most one attempt of one message, uncharged."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from penstock.app.context import Context
from penstock.app.handlers import DatabaseWay
from penstock.app.outcomes import Raised
from penstock.config.database import DatabaseSection
from penstock.workers.database import mysql, postgresql
from penstock.workers.database.kinds import own_kind
from tests.crash.proxy import Proxy, Way
from tests.workers.databases.place import Place, put, store


@pytest.fixture(params=["own", "channel"])
def way(request: pytest.FixtureRequest) -> DatabaseWay:
    found: DatabaseWay = request.param
    return found


def kill_every_connection(place: Place) -> None:
    for number in place.connections:
        place.running.kill_connection(number)
    until(lambda: not place.connections)


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def stop_in_order(place: Place) -> None:
    place.running.restart()


def kill_the_server(place: Place) -> None:
    place.running.kill()
    place.running.start()


BREAKS = [kill_every_connection, stop_in_order, kill_the_server]


@pytest.mark.parametrize("happens", BREAKS)
def test_what_happens_between_two_messages_costs_no_attempt_at_all(
    own_place: Place, happens: Callable[[Place], None]
) -> None:
    with own_place.worker(store) as worker:
        worker.run(1)
        happens(own_place)
        assert worker.run(2).verdict == "acked"
        assert len(own_place.connections_once(1)) == 1
    assert [number for number, *_ in own_place.rows()] == [1, 2]


@pytest.mark.parametrize("happens", BREAKS)
def test_what_happens_inside_a_transaction_costs_one_run_of_one_message_and_charges_nobody(
    own_place: Place, happens: Callable[[Place], None]
) -> None:
    broken: list[int] = []

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        if payload == 2 and not broken:
            broken.append(payload)
            happens(own_place)
        put(ctx, payload + 10)

    with own_place.worker(handler) as worker:
        worker.run(1)
        outcome = worker.run(2).outcome
        assert isinstance(outcome, Raised)
        assert (outcome.charged, outcome.commit_unknown) == (False, False)
        assert worker.run(2).verdict == "acked"
        assert worker.run(3).verdict == "acked"
        assert len(own_place.connections_once(1)) == 1
    assert [number for number, *_ in own_place.rows()] == [1, 2, 3, 11, 12, 13]


def test_a_handler_that_catches_the_loss_is_not_charged_and_nothing_of_it_is_acked(
    server_place: Place,
) -> None:
    runs: list[int] = []

    def handler(payload: int, ctx: Context) -> None:
        runs.append(payload)
        put(ctx, payload)
        if len(runs) == 1:
            kill_every_connection(server_place)
            try:
                put(ctx, payload + 10)
            except Exception:  # noqa: BLE001
                raise ValueError("what the handler makes of it") from None

    with server_place.worker(handler) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert not outcome.charged
        assert worker.run(1).verdict == "acked"
    assert len(server_place.rows()) == 1


def test_an_idle_connection_that_the_server_timed_out_costs_no_attempt(server_place: Place) -> None:
    if server_place.way == "channel":
        pytest.skip("the connection is the loop's, which tests its own")
    short = {"mariadb": "SET SESSION wait_timeout = 1", "postgresql": "SET idle_session_timeout = '200ms'"}
    limits: list[int] = []

    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)

    with server_place.worker(handler) as worker:
        raw = worker.worker._worker._database._raw  # type: ignore[union-attr]
        with raw.cursor() as cursor:
            cursor.execute(short[server_place.kind])
        raw.commit()
        raw.left = None
        limits += server_place.connections
        until(lambda: not server_place.connections)
        assert worker.run(2).verdict == "acked"
        assert server_place.connections != limits


def test_a_transaction_that_stood_still_for_too_long_is_not_charged(server_place: Place) -> None:
    short = {
        "mariadb": "SET SESSION idle_transaction_timeout = 1",
        "postgresql": "SET LOCAL idle_in_transaction_session_timeout = '50ms'",
    }

    def handler(payload: int, ctx: Context) -> None:
        ctx.connection.execute(text(short[server_place.kind]))
        put(ctx, payload)
        until(lambda: not server_place.connections)
        put(ctx, payload + 1)

    with server_place.worker(handler, store) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert not outcome.charged
        assert worker.run(5, "q1").verdict == "acked"
    assert [number for number, *_ in server_place.rows()] == [5]


def test_a_connection_that_the_handler_closed_is_the_handlers_fault(server_place: Place) -> None:
    def handler(payload: int, ctx: Context) -> None:
        put(ctx, payload)
        ctx.connection.connection.driver_connection.close()  # type: ignore[union-attr]
        put(ctx, payload + 1)

    with server_place.worker(handler, store) as worker:
        outcome = worker.run(1).outcome
        assert isinstance(outcome, Raised)
        assert outcome.charged
        assert worker.run(5, "q1").verdict == "acked"
    assert [number for number, *_ in server_place.rows()] == [5]


class Wire:
    """A proxy between worker and server, on a loop in a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> None:
        self._loop = loop
        self._proxy = proxy
        self.url = proxy.url

    def cut_the_next_answer(self) -> None:
        """The connection breaks when the server answers, before the worker hears of it."""

        async def cut() -> None:
            self._proxy.cut_after(Way.DOWN, 1)

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result()


@contextmanager
def wire_to(place: Place) -> Iterator[Wire]:
    started: list[Wire] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with Proxy(place.url) as proxy:
            started.append(Wire(asyncio.get_running_loop(), proxy))
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        over.set()
        thread.join()


def test_a_commit_whose_answer_is_lost_is_told_to_the_next_run(server_place: Place) -> None:
    told: list[str | None] = []
    with wire_to(server_place) as wire:

        def handler(payload: int, ctx: Context) -> None:
            told.append(ctx.redelivered_after)
            if ctx.redelivered_after == "commit unknown":
                found = ctx.connection.execute(text("SELECT id FROM item WHERE id = :id"), {"id": payload})
                if found.first() is not None:
                    return
            put(ctx, payload)
            wire.cut_the_next_answer()

        with server_place.worker(handler, url=wire.url) as worker:
            first = worker.run(1)
            assert isinstance(first.outcome, Raised)
            assert (first.outcome.charged, first.outcome.commit_unknown) == (False, True)
            # The server has done it, though nobody heard of it: its effect is there before the next run.
            assert len(server_place.rows()) == 1
            history = first.decision.publish[0].history
            assert history is not None
            assert history.commit_unknown
            assert worker.run(1, redelivered_after="commit unknown").verdict == "acked"
    assert told == [None, "commit unknown"]
    assert len(server_place.rows()) == 1


def test_a_frozen_server_does_not_hold_the_test_of_an_idle_connection_for_long(
    own_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own_place.way == "channel":
        pytest.skip("the connection is the loop's, which tests its own")
    monkeypatch.setattr(mysql, "_PING_TIMEOUT_S", 0.3)
    monkeypatch.setattr(postgresql, "_PING_TIMEOUT_S", 0.3)
    with own_place.worker(store, idle_test_s=0) as worker:
        worker.run(1)
        database = worker.worker._worker._database  # type: ignore[union-attr]
        own_place.running.freeze()
        try:
            with pytest.raises(Exception, match=r"(?i)sign of life|lost connection|timed out"):
                database._kind.ping(database._raw)  # type: ignore[union-attr]
        finally:
            own_place.running.thaw()


def test_what_mysql_says_when_it_stops_is_a_lost_connection() -> None:
    from pymysql.err import OperationalError, ProgrammingError

    kind = own_kind(DatabaseSection(url=SecretStr("mysql+pymysql://user:word@localhost/nowhere")))
    assert kind.is_lost(OperationalError(1053, "Server shutdown in progress"))
    assert kind.is_lost(OperationalError(3169, "Session was killed"))
    assert not kind.is_lost(ProgrammingError(1146, "Table doesn't exist"))
