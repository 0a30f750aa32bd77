"""What the operator reads when something goes wrong between the channel and a real server, and what no line may hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock.channels.db.server import pool, work
from penstock.channels.db.server.mysql import MySQLDriver
from penstock.channels.db.server.postgresql import PostgreSQLDriver
from penstock.channels.db.service import DatabaseService
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseBusy
from tests.channels.conftest import FRAME_BYTES, Workshop, local, until
from tests.channels.db.server_case import KINDS, SLEEP, Case, service_with_table
from tests.channels.db.server_cursors import Worker
from tests.servers import PASSWORD, Server

SECRET = "a secret"
LOST = "the connection to the database server was lost: "
LOST_AMID_COMMIT = "the connection to the database server was lost amid a commit"
AGAIN = "the database server answers again"
UNREACHABLE = "the database server cannot be reached"
IDLE_ENDED = "an idle connection to the database server had ended"
WAITING = "every connection to the database server is in use"
REFUSED = "every connection to the database server was in use"
ABANDONED = "a transaction was open when its worker died"
IDLE = "a transaction stood without a statement"
KILL_FAILED = "a statement that nobody waits for any more could not be ended"
NOT_ENDED = "a statement that nobody waits for any more has not ended"
ROLLBACK_FAILED = "a rollback failed"
FAULT = "a fault of Penstock's own"


class Lines:
    """What was logged; a line is known by the beginning of its event."""

    def __init__(self, lines: list[Any]) -> None:
        self._lines = lines

    def of(self, event: str) -> list[Any]:
        return [line for line in self._lines if line["event"].startswith(event)]

    def one(self, event: str) -> Any:
        [line] = self.of(event)
        return line

    def events(self) -> list[str]:
        return [line["event"] for line in self._lines]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as found:
        yield Lines(found)
    # Whatever happened.
    assert PASSWORD not in str(found)
    assert SECRET not in str(found)


async def test_a_lost_connection_is_told_with_its_caller_and_that_the_server_answers_again(
    case: Case, lines: Lines
) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service, "worker 3")
    ran = await worker.run("INSERT INTO t VALUES (%s, %s)", [1, "a secret"], begins=True)
    case.kill_connections()
    await until(lambda: case.connections() == 0)
    await worker.fail("INSERT INTO t VALUES (%s, %s)", [2, "a secret"], transaction=ran.transaction)
    lost = lines.one(LOST)
    assert (lost["caller"], lost["log_level"], lost["left_out"]) == ("worker 3", "warning", 0)
    assert lost["database"].endswith(f"127.0.0.1:{case.server.port}/{case.url.rpartition('/')[2]}")
    assert lost["why"]
    assert lines.of(AGAIN) == []
    await worker.rows("SELECT 1")
    assert lines.one(AGAIN)["refused"] == 0
    await worker.rows("SELECT 1")
    assert len(lines.events()) == 2


async def test_a_connection_that_is_lost_amid_a_commit_is_told_as_that(case: Case, lines: Lines) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    ran = await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    case.kill_connections()
    await until(lambda: case.connections() == 0)
    assert await worker.end(ran) is not None
    assert "whether it was kept is not known" in lines.one(LOST_AMID_COMMIT)["event"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_is_away_is_told_of_once_and_when_it_is_back(
    kind: str, request: pytest.FixtureRequest, lines: Lines
) -> None:
    server: Server = request.getfixturevalue(f"own_{kind}")
    service = DatabaseService(DatabaseSection.model_validate({"url": server.url}), frame_bytes=FRAME_BYTES)
    await service.start()
    db = local(service, "handler store")
    await asyncio.to_thread(server.stop)
    for _ in range(20):
        with pytest.raises(DatabaseBusy):
            await db.fetch_one("SELECT :v AS v", {"v": "a secret"})
    assert lines.one(UNREACHABLE)["caller"] == "handler store"
    await asyncio.to_thread(server.start)
    await db.fetch_one("SELECT 1 AS one")
    again = lines.one(AGAIN)
    assert (again["refused"], again["log_level"]) == (20, "info")
    assert again["away_s"] > 0
    assert len(lines.events()) == 2
    await service.aclose()


async def test_idle_connections_that_the_server_closed_are_one_quiet_line(case: Case, lines: Lines) -> None:
    service = await service_with_table(case, server_connections=2)
    workers = Worker(service, "first"), Worker(service, "second")
    open_ones = [await worker.run("SELECT 1", begins=True) for worker in workers]
    for worker, ran in zip(workers, open_ones, strict=True):
        await worker.end(ran)
    case.kill_connections()
    await until(lambda: case.connections() == 0)
    for worker in workers:
        assert await worker.rows("SELECT 1") == [[1]]
    assert lines.one(IDLE_ENDED)["log_level"] == "info"
    assert len(lines.events()) == 1


async def test_who_waits_for_a_connection_is_told_and_who_has_them(
    case: Case, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_TELL_WAIT_S", 0.05)
    service = await case.service(server_connections=1, wait_s=0.4)
    holder, waiter = Worker(service, "worker 1"), Worker(service, "worker 2")
    ran = await holder.run("SELECT 1", begins=True)
    refusals = await asyncio.gather(*(waiter.fail("SELECT 1") for _ in range(5)))
    assert {refusal.code_name for refusal in refusals} == {"DatabaseBusy"}
    for event in (WAITING, REFUSED):
        line = lines.one(event)
        assert (line["caller"], line["connections"]) == ("worker 2", 1)
        [words] = line["holders"]
        assert words.startswith("worker 1 for 0.")
    assert lines.one(WAITING)["waited_s"] < 0.4 <= lines.one(REFUSED)["waited_s"]
    assert await holder.end(ran) is None
    assert await waiter.rows("SELECT 1") == [[1]]
    assert len(lines.events()) == 2


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_dead_worker_s_transaction_is_told_and_its_ended_statement_is_no_lost_connection(
    case: Case, lines: Lines, workshop: Workshop, is_running: bool
) -> None:
    service = await service_with_table(case)
    worker = Worker(service, "worker 7")
    ran = await worker.run("INSERT INTO t VALUES (1, 'a secret')", begins=True)
    running: asyncio.Task[Any] | None = None
    if is_running:
        running = asyncio.create_task(worker.try_to_run(SLEEP[case.kind], transaction=ran.transaction))
        await until(case.sleeping)
    # As when its process dies: what it calls is cancelled, and everybody is told.
    if running is not None:
        running.cancel()
    service.forget(worker.caller)
    if running is not None:
        await asyncio.wait({running})
    await until(lambda: case.at_work() == 0, pause_s=0.15)
    assert await Worker(service, "another").rows("SELECT count(*) FROM t") == [[0]]
    line = lines.one(ABANDONED)
    assert (line["caller"], line["log_level"]) == ("worker 7", "warning")
    assert len(lines.events()) == 1


async def test_an_idle_transaction_is_told(case: Case, lines: Lines) -> None:
    worker = Worker(await service_with_table(case, transaction_idle_s=0.05), "worker 4")
    await worker.run("INSERT INTO t VALUES (1, 'a secret')", begins=True)
    await until(lambda: lines.of(IDLE))
    assert (lines.one(IDLE)["caller"], lines.one(IDLE)["idle_s"]) == ("worker 4", 0.05)


async def test_what_a_frozen_server_keeps_us_from_is_told(
    case: Case, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await case.service(server_connections=2)
    sleeper, holder = Worker(service, "worker 1"), Worker(service, "worker 2")
    sleeping = asyncio.create_task(sleeper.try_to_run(SLEEP[case.kind]))
    await holder.run("SELECT 1", begins=True)
    await until(case.sleeping)
    monkeypatch.setattr(pool, "_ROLLBACK_S", 0.1)
    monkeypatch.setattr(work, "_PATIENCE_S", 0.1)
    case.server.freeze()
    try:
        sleeping.cancel()
        service.forget(holder.caller)
        await until(lambda: lines.of(NOT_ENDED) and lines.of(ROLLBACK_FAILED))
    finally:
        case.server.thaw()
    failed, late = lines.one(KILL_FAILED), lines.one(NOT_ENDED)
    assert failed["caller"] == late["caller"] == "worker 1"
    assert failed["connection"] == late["connection"] > 0
    assert "did not answer for 0.1 s" in failed["error"]
    assert lines.one(ROLLBACK_FAILED)["caller"] == "worker 2"
    # A server that sleeps looks for its client every few seconds only.
    case.kill_connections()


async def test_a_fault_that_nobody_has_foreseen_is_told_by_its_place_and_without_its_text(
    case: Case, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await service_with_table(case, server_connections=1)
    worker = Worker(service)
    driver = {"mariadb": MySQLDriver, "postgresql": PostgreSQLDriver}[case.kind]
    await worker.run("INSERT INTO t VALUES (1, 'a')", begins=True)
    with monkeypatch.context() as patched:
        patched.setattr(driver, "roll_back", _raise)
        service.forget(worker.caller)
        await until(lambda: lines.of(FAULT))
    assert lines.one(ROLLBACK_FAILED)["error"] == lines.one(FAULT)["error"] == "ZeroDivisionError"
    assert "in give" in lines.one(FAULT)["stack"]
    # Its connection is not missing from the pool.
    assert await worker.rows("SELECT count(*) FROM t") == [[0]]


async def _raise(*_: object) -> None:
    raise ZeroDivisionError(SECRET)
