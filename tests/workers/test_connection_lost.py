"""A connection that is idle, broken or gone: whose fault it is, and what the next message gets."""

import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import psycopg.errors
import pymysql
import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, DatabaseUnavailable, DeadlineExceeded
from penstock.workers import connection as connection_module
from penstock.workers.connection import OwnConnection
from penstock.workers.database import mysql, sqlite
from penstock.workers.database.address import Address
from penstock.workers.database.kind import DatabaseKind
from penstock.workers.database.kinds import channel_kind, own_kind
from tests.workers.own_connection import (
    ITEMS,
    Base,
    EnoughSeenError,
    Worker,
    names_in,
    somebody_else_on,
    until_lines,
    worker_on,
)


@pytest.fixture
def worker(path: Path) -> Iterator[Worker]:
    with worker_on(path, busy_timeout_s=5, connect_backoff_cap_s=0.01) as worker:
        yield worker


def worker_of_absent_mysql() -> Worker:
    """It knows which database it would speak to, and nobody answers there."""
    worker = Worker(
        "mysql+pymysql://pen@127.0.0.1:1/shop", on_line=until_lines(1), connect_backoff_cap_s=0.01
    )
    with pytest.raises(EnoughSeenError):
        worker.own.open()
    return worker


def insert_cup(own: OwnConnection) -> None:
    own.connection.execute(insert(ITEMS).values(name="cup"))


def test_an_idle_connection_that_broke_is_replaced_before_the_next_message_sees_it(path: Path) -> None:
    with worker_on(path, idle_test_s=0) as worker:
        before = worker.driver_connection()
        before.close()
        worker.message(insert_cup)
        assert worker.driver_connection() is not before
        assert worker.log[0]["event"] == "the worker's database connection cannot be used; opening a new one"
    assert names_in(path) == ["cup"]


def test_an_idle_connection_is_asked_for_a_sign_of_life_and_a_busy_one_is_not(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(DatabaseKind, "ping", lambda _kind, _raw: asked.append("ping"))
    with worker_on(path, idle_test_s=3600) as worker:
        worker.message(insert_cup)
        assert asked == []
    with worker_on(path, idle_test_s=0) as worker:
        asked.clear()
        worker.message(lambda own: own.connection.execute(select(ITEMS)))
        assert asked == ["ping"]


def test_a_sign_of_life_that_does_not_come_costs_the_connection(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker_on(path, idle_test_s=0) as worker:
        before = worker.driver_connection()

        def silent(_kind: DatabaseKind, _raw: object) -> None:
            monkeypatch.undo()
            raise TimeoutError("timed out")

        monkeypatch.setattr(DatabaseKind, "ping", silent)
        worker.message(insert_cup)
        assert worker.driver_connection() is not before
        assert worker.log[0]["reason"] == "timed out"


def test_a_file_that_was_moved_away_is_not_written_to(
    worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a database whose file somebody moves while the worker holds it open
    monkeypatch.setattr(sqlite, "_LOOK_EACH_S", 0.0)
    monkeypatch.setattr(connection_module, "REOPEN_WAIT_S", 0.1)
    moved = path.with_name("moved.db")
    path.rename(moved)
    # When a message comes, it waits, and is not charged
    with pytest.raises(
        DatabaseUnavailable, match="cannot be reached; the message was rolled back and comes again"
    ) as caught:
        worker.message(insert_cup)
    assert worker.own.is_lost(caught.value)
    assert not path.exists(), "an empty database in its place would fail every message"
    assert any("has gone; put it back" in line.get("error", "") for line in worker.log)
    # Then it goes on once the file is back
    moved.rename(path)
    worker.message(insert_cup)
    assert names_in(path) == ["cup"]


def test_a_file_that_was_replaced_is_opened_anew(
    worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_EACH_S", 0.0)
    with worker_on(path.with_name("restored.db")) as other:
        other.message(lambda own: own.connection.execute(insert(ITEMS).values(name="restored")))
    # As SQLite's manual says: a log that belongs to another file must not stay beside this one.
    path.with_name("app.db-wal").unlink()
    path.with_name("app.db-shm").unlink()
    path.with_name("restored.db").replace(path)
    worker.message(insert_cup)
    assert names_in(path) == ["restored", "cup"]


def test_a_handler_known_to_want_the_database_waits_before_its_time_begins(
    worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_LOOK_EACH_S", 0.0)
    monkeypatch.setattr(connection_module, "REOPEN_WAIT_S", 0.1)
    worker.message(insert_cup, "known")
    moved = path.rename(path.with_name("moved.db"))
    with pytest.raises(DatabaseUnavailable):
        worker.message(insert_cup, "known")
    # Without touching it, the one that is known waits in begin(), the other does not wait at all
    lines = len(worker.log)
    worker.message(repr, "stranger")
    assert len(worker.log) == lines
    worker.message(repr, "known")
    assert len(worker.log) > lines
    moved.rename(path)
    worker.own.begin("known")
    assert "held" in repr(worker.own)
    assert "none held" not in repr(worker.own)


def test_a_driver_that_cannot_work_any_more_fails_the_handler_and_not_the_begin(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(_kind: DatabaseKind) -> None:
        raise ImportError("a library was removed by an upgrade")

    worker.message(lambda own: own.connection.exec_driver_sql("CREATE TEMP TABLE stray (id INTEGER)"))
    monkeypatch.setattr(sqlite.SqliteKind, "connect", removed)
    worker.own.begin("store")
    with pytest.raises(ConfigurationError, match="removed by an upgrade"):
        worker.own.connection.begin()


def test_somebody_elses_lock_is_not_the_messages_fault(path: Path) -> None:
    with worker_on(path, busy_timeout_s=0.05) as worker, somebody_else_on(path) as other:
        before = worker.driver_connection()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="database is locked") as caught:
            worker.message(insert_cup)
        assert worker.own.is_busy(caught.value)
        assert not worker.own.is_lost(caught.value)
        other.execute("ROLLBACK")
        worker.message(insert_cup)
        assert worker.driver_connection() is before
    assert names_in(path) == ["cup"]


def test_a_handler_that_tries_again_after_a_lock_is_still_inside_one_transaction(path: Path) -> None:
    with worker_on(path, busy_timeout_s=0.05) as worker, somebody_else_on(path) as other:
        other.execute("BEGIN IMMEDIATE")

        def handler(own: OwnConnection) -> None:
            with pytest.raises(OperationalError):
                insert_cup(own)
            other.execute("ROLLBACK")
            insert_cup(own)
            assert names_in(path) == []
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            worker.message(handler)
    assert names_in(path) == []


def test_a_cause_is_found_behind_the_handlers_own_exception(path: Path) -> None:
    with worker_on(path, busy_timeout_s=0.05) as worker, somebody_else_on(path) as other:
        other.execute("BEGIN IMMEDIATE")

        def chained(own: OwnConnection) -> None:
            try:
                insert_cup(own)
            except OperationalError as error:
                raise LookupError("no cup") from error

        def cut(own: OwnConnection) -> None:
            try:
                insert_cup(own)
            except OperationalError:
                raise LookupError("no cup") from None

        with pytest.raises(LookupError) as caught:
            worker.message(chained)
        assert worker.own.is_busy(caught.value)
        with pytest.raises(LookupError) as caught:
            worker.message(cut)
        assert not worker.own.is_busy(caught.value)


def test_a_full_database_is_not_the_messages_fault(worker: Worker) -> None:
    def handler(own: OwnConnection) -> None:
        own.connection.exec_driver_sql("PRAGMA max_page_count=1")
        own.connection.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000) AS body"))

    with pytest.raises(OperationalError, match="database or disk is full") as caught:
        worker.message(handler)
    assert worker.own.is_busy(caught.value)
    worker.message(
        lambda own: own.connection.execute(text("CREATE TABLE big AS SELECT zeroblob(1000000) AS body"))
    )


def _write_beyond_the_limit(path: Path, swallow: bool, answers: "Pipe[object, object]") -> None:
    """Runs in a process of its own, whose files may not grow."""
    with worker_on(path, connect_backoff_cap_s=0.01) as worker:
        before = worker.driver_connection()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))

        def handler(own: OwnConnection) -> None:
            insert_cup(own)
            try:
                own.connection.execute(text("CREATE TABLE big AS SELECT zeroblob(50000000) AS body"))
            except DBAPIError:
                if not swallow:
                    raise

        failed: Exception | None = None
        try:
            worker.message(handler)
        except (DBAPIError, PendingRollbackError) as error:
            failed = error
        lost = failed is not None and worker.own.is_lost(failed)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="plate")))
        answers.send((type(failed).__name__, lost, worker.driver_connection() is not before))


@pytest.mark.parametrize(("swallow", "kind"), [(False, "OperationalError"), (True, "PendingRollbackError")])
def test_a_file_that_cannot_be_written_costs_the_connection_and_not_the_message(
    path: Path, swallow: bool, kind: str
) -> None:
    processes = get_context("spawn")
    answers, theirs = processes.Pipe(duplex=False)
    child = processes.Process(target=_write_beyond_the_limit, args=(path, swallow, theirs))
    child.start()
    theirs.close()
    name, lost, replaced = answers.recv()
    child.join()
    answers.close()
    assert (name, lost, replaced) == (kind, True, True)
    assert names_in(path) == ["plate"]


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query"), "lost"),
        (pymysql.err.OperationalError(2006, "MySQL server has gone away"), "lost"),
        (pymysql.err.InterfaceError(0, ""), "lost"),
        (pymysql.err.OperationalError(3169, "The session was killed"), "lost"),
        (pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"), "conflict"),
        (pymysql.err.OperationalError(1213, "Deadlock found"), "conflict"),
        (pymysql.err.OperationalError(1114, "The table is full"), "busy"),
        (pymysql.err.IntegrityError(1062, "Duplicate entry"), None),
        (pymysql.err.ProgrammingError(1064, "You have an error"), None),
        (pymysql.err.ProgrammingError(), None),
        (ValueError("2013"), None),
        (sqlite3.OperationalError("database is locked"), None),
    ],
)
def test_mysqls_errors_are_told_apart(error: Exception, verdict: str | None) -> None:
    worker = worker_of_absent_mysql()
    own = worker.own
    verdicts = {"lost": own.is_lost(error), "conflict": own.is_conflict(error), "busy": own.is_busy(error)}
    assert [name for name, holds in verdicts.items() if holds] == ([] if verdict is None else [verdict])
    worker.own.close()


@pytest.mark.parametrize("way", [own_kind, channel_kind])
@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (psycopg.errors.SerializationFailure(), "conflict"),
        (psycopg.errors.DeadlockDetected(), "conflict"),
        (psycopg.errors.LockNotAvailable(), "conflict"),
        (psycopg.errors.DiskFull(), "busy"),
        (psycopg.errors.OutOfMemory(), "busy"),
        (psycopg.errors.UniqueViolation(), None),
        (pymysql.err.OperationalError(1213, "Deadlock found"), None),
        (ValueError("40001"), None),
    ],
)
def test_postgresqls_errors_are_told_apart_on_both_ways(
    way: Callable[[DatabaseSection], DatabaseKind], error: Exception, verdict: str | None
) -> None:
    kind = way(DatabaseSection(url=SecretStr("postgresql+psycopg://pen@127.0.0.1:1/shop")))
    verdicts = {"lost": kind.is_lost(error), "conflict": kind.is_conflict(error), "busy": kind.is_busy(error)}
    assert [name for name, holds in verdicts.items() if holds] == ([] if verdict is None else [verdict])


def test_what_follows_a_statement_that_a_deadline_cut_off_is_refused_and_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bytes] = []

    def cut_off(_connection: object, statement: bytes, _unbuffered: bool) -> int:
        asked.append(statement)
        raise DeadlineExceeded("late")

    monkeypatch.setattr(pymysql.connections.Connection, "query", cut_off)
    raw = mysql.WatchedConnection(defer_connect=True)
    with pytest.raises(DeadlineExceeded):
        raw.query("SELECT 1")
    for follow in (raw.rollback, raw.commit):
        with pytest.raises(mysql.CutOffError, match="cut off"):
            follow()
    with pytest.raises(mysql.CutOffError, match="cut off") as caught:
        raw.query("SELECT 2")
    assert asked == [b"SELECT 1"], "the answer to the first is still on its way"
    worker = worker_of_absent_mysql()
    assert not worker.own.is_lost(caught.value)
    worker.own.close()


def test_an_error_loop_does_not_hang_the_classification(worker: Worker) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    started = time.monotonic()
    assert not worker.own.is_lost(first)
    assert not worker.own.is_busy(first)
    assert time.monotonic() - started < 1


def test_any_database_that_sqlalchemy_knows_gets_the_general_treatment(path: Path) -> None:
    # The general kind, on the one database that is always there.
    section = DatabaseSection.model_validate({"url": f"sqlite:///{path}"})
    worker = Worker(f"sqlite:///{path}")
    worker.own._kind = DatabaseKind(Address(section), section)
    worker.own.open()
    worker.message(lambda own: Base.metadata.create_all(own.connection))
    before = worker.driver_connection()
    worker.message(insert_cup)
    assert worker.driver_connection() is before
    worker.message(lambda own: own.connection.exec_driver_sql("CREATE TEMP TABLE stray (id INTEGER)"))
    after = worker.driver_connection()
    assert after is not before
    worker.message(
        lambda own: own.connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("SELECT 1"))
    )
    assert worker.driver_connection() is not after
    worker.own.close()
    assert names_in(path) == ["cup"]
