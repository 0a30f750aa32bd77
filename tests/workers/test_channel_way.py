"""`database="channel"` on SQLite, and what is refused where it is written; what is the same on every database is tried there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import OperationalError

from penstock import App, Context, HandlerError
from penstock.app.outcomes import Raised
from penstock.channels.db.sqlite import database_file
from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.testing import Worker
from penstock.workers.database.kinds import channel_kind
from tests.workers.channel_application import application


class Case:
    """A worker on a new file."""

    def __init__(self, app: App, file: Path) -> None:
        self.file = file
        self.state = SimpleNamespace(found=None)
        self.worker = Worker(app, database=f"sqlite:///{file}", state=self.state)

    def run(self, queue: str, payload: Any = None) -> Any:
        self.worker.run(queue, payload).raise_for_failure()
        return self.state.found

    def rows(self, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.file)) as connection:
            return connection.execute(statement).fetchall()


def test_a_handler_that_changes_the_connection_costs_the_next_one_nothing(tmp_path: Path) -> None:
    app = application("channel")
    held: list[Any] = []

    @app.handler("spoil", database="channel")
    def spoil(_: None, ctx: Context) -> None:
        raw: Any = ctx.connection.connection.dbapi_connection
        raw.row_factory = sqlite3.Row
        raw.isolation_level = None
        held.append(raw)

    @app.handler("leave", database="channel")
    def leave(_: None, ctx: Context) -> None:
        engine = create_engine("sqlite+penstock://")
        connection = engine.connect()
        connection.exec_driver_sql("INSERT INTO authors (name) VALUES ('left open')")
        held.append(connection)

    case = Case(app, tmp_path / "app.db")
    with case.worker:
        case.run("make")
        case.run("spoil")
        case.run("write", "Ann")
        case.run("leave")
        case.run("write", "Bob")
        assert case.run("read")[0][0] == "Ann!!"
        held.clear()
    assert case.rows("SELECT count(*) FROM authors") == [(2,)]


def test_both_ways_in_one_message_are_refused_at_once(tmp_path: Path) -> None:
    app = application("channel")

    @app.handler("both", database="channel", retry=None)
    def both(_: None, ctx: Context) -> None:
        ctx.connection.exec_driver_sql("INSERT INTO authors (name) VALUES ('one')")
        ctx.db.execute("INSERT INTO authors (name) VALUES ('two')")

    case = Case(app, tmp_path / "app.db")
    with case.worker:
        case.run("make")
        with pytest.raises(Exception, match="this worker holds the writer already"):
            case.run("both")
    assert case.rows("SELECT count(*) FROM authors") == [(0,)]


@pytest.mark.parametrize("word", ["chanel", ""])
def test_a_way_that_does_not_exist_is_refused_where_it_is_written(word: Any) -> None:
    with pytest.raises(HandlerError, match="write 'own' or 'channel'"):
        App().handler("x", database=word)(print)


def test_an_async_handler_has_no_second_way() -> None:
    async def handle(payload: int) -> None: ...

    with pytest.raises(HandlerError, match=r"ctx\.db is its database"):
        App().handler("x", database="channel")(handle)


def test_a_function_with_two_ways_is_refused_at_start(tmp_path: Path) -> None:
    app = App()

    def handle(payload: int, ctx: Context) -> None: ...

    app.handler("a", database="channel")(handle)
    app.handler("b")(handle)
    with (
        pytest.raises(HandlerError, match="two ways"),
        Worker(app, database=f"sqlite:///{tmp_path}/app.db", state=SimpleNamespace()),
    ):
        pytest.fail("it began")


class _OtherDialect(SQLiteDialect_pysqlite):
    name = "other"


def test_a_database_that_the_channel_does_not_speak_is_refused_at_start() -> None:
    registry.register("other", __name__, _OtherDialect.__name__)
    with pytest.raises(ConfigurationError, match="speaks SQLite, MySQL, MariaDB and PostgreSQL"):
        channel_kind(DatabaseSection.model_validate({"url": "other:///x.db"}))


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:shared?mode=memory&cache=shared&uri=true"]
)
def test_a_database_in_memory_is_refused_at_start(url: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="needs a database in a file"),
        Worker(application("channel"), database=url),
    ):
        pass


def test_a_file_that_is_replaced_under_a_message_charges_it_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "_LOOK_EACH_S", 0.0)
    file = tmp_path / "app.db"
    app = App()

    @app.handler("write", database="channel")
    def write(replaces: bool, ctx: Context) -> None:
        ctx.connection.execute(text("CREATE TABLE IF NOT EXISTS t (v)"))
        ctx.connection.execute(text("INSERT INTO t VALUES (1)"))
        if replaces:
            for old in tmp_path.glob("app.db*"):
                old.unlink()
            file.touch()

    with Worker(app, database=f"sqlite:///{file}") as worker:
        worker.run("write", False).raise_for_failure()
        outcome = worker.run("write", True).outcome
        assert isinstance(outcome, Raised)
        assert not outcome.charged
        assert "app.db is another one now; nothing of the transaction was kept" in str(outcome)
        worker.run("write", False).raise_for_failure()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchall() == [(1,)]


@pytest.mark.parametrize("way", ["own", "channel"])
def test_a_handler_that_stands_in_its_own_way_is_charged(
    tmp_path: Path, way: Literal["own", "channel"]
) -> None:
    app = App()

    @app.handler("tidy", database=way)
    def tidy(_payload: None, ctx: Context) -> None:
        ctx.connection.execute(text("CREATE TABLE t (v)"))
        ctx.connection.execute(
            text("INSERT INTO t SELECT zeroblob(100000) FROM json_each('[1,2,3,4,5,6,7,8]')")
        )
        rows = ctx.connection.execute(text("SELECT v FROM t"))
        rows.fetchone()
        ctx.connection.execute(text("DROP TABLE t"))

    with Worker(app, database=f"sqlite:///{tmp_path / 'app.db'}") as worker:
        outcome = worker.run("tidy", None).outcome
    assert isinstance(outcome, Raised)
    assert "database table is locked" in str(outcome)
    assert outcome.charged, "it would come again for ever: nobody else's lock was in the way"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (2)",
        "INSERT INTO t VALUES (2) RETURNING v",
        "WITH x AS (SELECT 2 AS v) INSERT INTO t SELECT v FROM x RETURNING v",
        "DROP TABLE t",
        "PRAGMA user_version = 2",
    ],
)
def test_a_stream_cannot_write(tmp_path: Path, statement: str) -> None:
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE t (v); INSERT INTO t VALUES (1); PRAGMA user_version = 1")
    app = App()

    @app.handler("read", database="channel")
    def read(_: int, ctx: Context) -> None:
        with pytest.raises(OperationalError, match="attempt to write a readonly database"):
            list(ctx.stream(statement))
        assert list(ctx.stream("SELECT v FROM t")) == [(1,)]
        # What reads shares nothing with what writes.
        ctx.connection.execute(text("INSERT INTO t VALUES (3)"))

    with Worker(app, database=f"sqlite:///{file}") as worker:
        worker.run("read", 1).raise_for_failure()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT v FROM t ORDER BY v").fetchall() == [(1,), (3,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
