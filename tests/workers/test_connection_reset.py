"""What a handler leaves on the connection does not reach the next message."""

import math
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, inspect, select, text

from penstock.channels.db.leftovers import left_by
from penstock.workers.connection import OwnConnection
from tests.workers.own_connection import ITEMS, Item, Worker, names_in, somebody_else_on

Leave = Callable[[OwnConnection], object]


def sql(statement: str) -> Leave:
    return lambda own: own.connection.exec_driver_sql(statement)


def raw(own: OwnConnection) -> Any:
    return own.connection.connection.driver_connection


def set_on_raw(name: str, value: object) -> Leave:
    return lambda own: setattr(raw(own), name, value)


def count(sql_: str) -> Callable[[OwnConnection], object]:
    return lambda own: own.connection.exec_driver_sql(sql_).scalar()


#: What a handler does; what the next message asks; what it must find.
LEFT: dict[str, tuple[Leave, Leave, object]] = {
    "a temporary table": (
        sql("CREATE TEMP TABLE item AS SELECT 'stray' AS name"),
        count("SELECT count(*) FROM item"),
        0,
    ),
    "a temporary view": (
        sql("CREATE TEMP VIEW stray AS SELECT 1"),
        count("SELECT count(*) FROM temp.sqlite_master"),
        0,
    ),
    "a temporary trigger": (
        sql("CREATE TEMP TRIGGER stray AFTER INSERT ON item BEGIN SELECT RAISE(ABORT, 'stray'); END"),
        lambda own: own.connection.execute(insert(ITEMS).values(name="cup")).rowcount,
        1,
    ),
    "a temporary table by its schema": (
        sql("CREATE TABLE temp.item AS SELECT 'stray' AS name"),
        count("SELECT count(*) FROM item"),
        0,
    ),
    "a temporary view by its schema": (
        sql("CREATE VIEW temp.stray AS SELECT 1"),
        count("SELECT count(*) FROM temp.sqlite_master"),
        0,
    ),
    "a temporary trigger by its schema": (
        sql("CREATE TRIGGER temp.stray AFTER INSERT ON main.item BEGIN SELECT 1; END"),
        count("SELECT count(*) FROM temp.sqlite_master"),
        0,
    ),
    "a temporary virtual table": (
        sql("CREATE VIRTUAL TABLE temp.stray USING fts5(a)"),
        count("SELECT count(*) FROM temp.sqlite_master"),
        0,
    ),
    "a pragma": (sql("PRAGMA cache_size=7"), count("PRAGMA cache_size"), -2000),
    "a pragma that weakens durability": (
        lambda own: raw(own).execute("PRAGMA synchronous=OFF"),
        count("PRAGMA synchronous"),
        2,
    ),
    "foreign keys off": (
        lambda own: raw(own).execute("PRAGMA foreign_keys=OFF"),
        count("PRAGMA foreign_keys"),
        1,
    ),
    "an attached database": (
        lambda own: raw(own).execute("ATTACH ':memory:' AS stray"),
        lambda own: [row[1] for row in own.connection.exec_driver_sql("PRAGMA database_list")],
        ["main"],
    ),
    "a row factory": (
        set_on_raw("row_factory", sqlite3.Row),
        lambda own: type(raw(own).execute("SELECT 1").fetchone()),
        tuple,
    ),
    "a text factory": (set_on_raw("text_factory", bytes), count("SELECT 'cup'"), "cup"),
    "the driver's own transactions": (
        set_on_raw("isolation_level", "DEFERRED"),
        lambda own: raw(own).isolation_level,
        None,
    ),
    "an isolation level": (
        lambda own: own.connection.execution_options(isolation_level="READ UNCOMMITTED").scalar(
            text("SELECT 1")
        ),
        count("PRAGMA read_uncommitted"),
        0,
    ),
    "AUTOCOMMIT": (
        lambda own: own.connection.execution_options(isolation_level="AUTOCOMMIT").scalar(text("SELECT 1")),
        lambda own: (own.connection.execute(text("SELECT 1")).scalar(), raw(own).in_transaction),
        (1, True),
    ),
    "a function in place of SQLite's own": (
        lambda own: raw(own).create_function("abs", 1, lambda _: "stray"),
        count("SELECT abs(-1)"),
        1,
    ),
    "a collation": (
        lambda own: raw(own).create_collation("nocase", lambda _a, _b: 0),
        count("SELECT 'a' = 'b' COLLATE nocase"),
        0,
    ),
    "an authorizer": (
        lambda own: raw(own).set_authorizer(lambda *_: sqlite3.SQLITE_DENY),
        count("SELECT 1"),
        1,
    ),
    "a limit": (lambda own: raw(own).setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 5), count("SELECT 1 + 1"), 2),
    "an execution option": (
        lambda own: own.connection.execution_options(schema_translate_map={None: "stray"}),
        lambda own: own.connection.scalar(select(ITEMS.c.name)),
        None,
    ),
    "an entry in the connection's info": (
        lambda own: own.connection.info.update(tenant="stray"),
        lambda own: own.connection.info,
        {},
    ),
    "an object in the session": (
        lambda own: own.session.add(Item(name="cup")),
        lambda own: (len(list(own.session.identity_map.values())), len(own.session.new)),
        (0, 0),
    ),
}


@pytest.mark.parametrize("what", LEFT)
@pytest.mark.parametrize("fails", [False, True], ids=["returns", "raises"])
def test_the_next_message_finds_the_defaults(worker: Worker, what: str, fails: bool) -> None:
    leave, look, expected = LEFT[what]

    def handler(own: OwnConnection) -> None:
        leave(own)
        if fails:
            raise ArithmeticError

    try:
        worker.message(handler, "leaver")
    except ArithmeticError:
        assert fails
    assert worker.message(look) == expected


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_that_the_driver_was_told_to_begin_does_not_last(
    worker: Worker, path: Path, commit: bool
) -> None:
    def handler(own: OwnConnection) -> None:
        raw(own).execute("BEGIN IMMEDIATE")
        if not commit:
            raise ArithmeticError

    try:
        worker.message(handler)
    except ArithmeticError:
        assert not commit
    with somebody_else_on(path) as other:
        other.execute("BEGIN IMMEDIATE")


def test_a_transaction_begun_between_two_messages_is_rolled_back(worker: Worker, path: Path) -> None:
    stashed = worker.driver_connection()
    stashed.execute("BEGIN IMMEDIATE")
    stashed.execute("INSERT INTO item (name) VALUES ('stray')")
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    assert names_in(path) == ["cup"]


def test_a_driver_connection_that_a_handler_closed_is_replaced(worker: Worker, path: Path) -> None:
    with pytest.raises(sqlite3.ProgrammingError, match="closed database") as caught:
        worker.message(lambda own: raw(own).close())
    assert not worker.own.is_lost(caught.value), (
        "closing it each time must not bring the message back for ever"
    )
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    assert names_in(path) == ["cup"]


def test_a_connection_that_a_handler_invalidated_is_replaced(worker: Worker, path: Path) -> None:
    before = worker.driver_connection()

    def handler(own: OwnConnection) -> None:
        own.connection.invalidate()
        own.connection.execute(insert(ITEMS).values(name="cup"))

    worker.message(handler)
    assert names_in(path) == ["cup"]
    assert worker.driver_connection() is not before
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="plate")))
    assert names_in(path) == ["cup", "plate"]


def test_a_half_read_result_blocks_nobody_afterwards(worker: Worker, path: Path) -> None:
    # Given a handler that keeps a result with rows to come, and the same of the driver
    kept: list[Any] = []
    worker.message(
        lambda own: own.connection.execute(
            insert(ITEMS), [{"name": f"cup {number}"} for number in range(100)]
        )
    )

    def handler(own: OwnConnection) -> None:
        result = own.connection.execute(select(ITEMS))
        rows = raw(own).execute("SELECT * FROM item")
        kept.extend([result, rows])
        assert result.fetchone() is not None
        assert rows.fetchone() is not None

    worker.message(handler)
    before = worker.driver_connection()
    # When somebody else writes and wants the log emptied, which a reader of an old state would prevent
    with somebody_else_on(path) as other:
        other.execute("INSERT INTO item (name) VALUES ('plate')")
        assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    # Then the next message can write too, on the same connection
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="fork")))
    assert worker.driver_connection() is before
    assert names_in(path)[-2:] == ["plate", "fork"]


def test_ids_asked_for_and_not_read_do_not_stop_the_commit(worker: Worker, path: Path) -> None:
    kept: list[Any] = []

    def handler(own: OwnConnection) -> None:
        kept.append(own.connection.execute(insert(ITEMS).values(name="cup").returning(ITEMS.c.id)))
        kept.append(raw(own).execute("INSERT INTO item (name) VALUES ('plate'), ('fork') RETURNING id"))

    worker.message(handler)
    assert names_in(path) == ["cup", "plate", "fork"]


def test_a_listener_on_the_connection_hears_nothing_of_the_next_message(worker: Worker) -> None:
    heard: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        heard.append(statement)

    def handler(own: OwnConnection) -> None:
        event.listen(own.connection, "before_cursor_execute", hear)
        own.connection.execute(text("SELECT 'mine'"))

    worker.message(handler)
    worker.message(lambda own: own.connection.execute(text("SELECT 'not mine'")))
    assert heard == ["SELECT 'mine'"]


def test_a_replaced_connection_is_reported_once_for_each_handler_and_habit(worker: Worker) -> None:
    def temporary(own: OwnConnection) -> None:
        own.connection.exec_driver_sql("CREATE TEMP TABLE stray (id INTEGER)")

    for handler in ("report", "report", "import"):
        worker.message(temporary, handler)
    assert [(line["handler"], line["left"]) for line in worker.log] == [
        ("report", "a temporary table"),
        ("import", "a temporary table"),
    ]


@pytest.mark.parametrize(
    "harmless",
    [
        lambda own: inspect(own.connection).get_columns("item"),
        lambda own: own.connection.exec_driver_sql("PRAGMA table_info(item)").all(),
        lambda own: own.connection.exec_driver_sql("SELECT * FROM pragma_index_list('item')").all(),
        lambda own: own.connection.exec_driver_sql("PRAGMA journal_mode").scalar(),
        lambda own: own.connection.exec_driver_sql("CREATE TABLE lasting (id INTEGER)"),
        lambda own: own.connection.exec_driver_sql("WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i+1 FROM n WHERE i<9) SELECT * FROM n ORDER BY i DESC").all(),
        lambda own: own.connection.begin_nested().commit(),
        lambda own: math.floor(own.connection.exec_driver_sql("SELECT floor(1.5)").scalar_one()),
        lambda own: own.connection.commit(),
    ],
)  # fmt: skip
def test_what_leaves_nothing_behind_does_not_cost_the_connection(worker: Worker, harmless: Leave) -> None:
    before = worker.driver_connection()
    worker.message(harmless)
    assert worker.driver_connection() is before
    assert worker.log == []


def test_the_memory_of_open_results_is_bounded(worker: Worker) -> None:
    def handler(own: OwnConnection) -> int:
        for _ in range(5_000):
            own.connection.execute(select(ITEMS)).all()
        return len(raw(own)._cursors)

    assert worker.message(handler) <= 65
    assert worker.driver_connection()._cursors == []


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("SET SESSION innodb_lock_wait_timeout=3", "SET"),
        ("set @a = 1", "SET"),
        ("  -- quick\n /* and dirty */ SET NAMES latin1", "SET"),
        ("# note\nUSE other", "USE"),
        ("CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY"),
        ("create temp table t (a int)", "CREATE TEMP"),
        ("CALL monthly()", "CALL"),
        ("LOCK TABLES item WRITE", "LOCK"),
        ("PREPARE p FROM 'SELECT 1'", "PREPARE"),
        ("SELECT @a := 1", ":="),
        ("SELECT 1 INTO @a", "INTO @"),
        ("SELECT GET_LOCK('x', 1)", "GET_LOCK"),
        ("/*!40101 SET NAMES utf8 */", "/*!"),
        ("/*M! SET NAMES utf8 */", "/*M!"),
        ("SET/**/ a = 1", "SET"),
        ("CREATE /* my */ TEMP TABLE t (a INT)", "CREATE TEMP"),
        ("SELECT pg_try_advisory_lock_shared(1)", "PG_TRY_ADVISORY_LOCK_SHARED"),
        ('CREATE TABLE "pg_temp".t (a INT)', "PG_TEMP"),
        ("EXPLAIN (ANALYZE) CREATE TEMP TABLE t AS SELECT 1", "CREATE TEMP"),
        ("SELECT ';'; SET work_mem = '8MB'", "SET"),
        (r"SELECT 'C:\'; SET work_mem = '8MB'", "SET"),
        (r"SELECT 'it\'s', ';'; SET a = 1", "SET"),
        ("SELECT '{}'::jsonb #> '{a}'; LISTEN x", "LISTEN"),
        ("SELECT 1; -- why\n DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE"),
        ("EXECUTE IMMEDIATE 'SET SESSION a = 1'", "EXECUTE"),
        ("BEGIN NOT ATOMIC SET SESSION a = 1; END", "BEGIN NOT"),
        ("IF 1 THEN SET SESSION a = 1; END IF", "IF"),
        ("GET DIAGNOSTICS @n = NUMBER", "GET DIAGNOSTICS"),
        ("SELECT LAST_INSERT_ID( 77 )", "LAST_INSERT_ID"),
        ("DEALLOCATE ALL", "DEALLOCATE"),
    ],
)
def test_a_statement_that_outlives_a_rollback_is_known_by_its_words(statement: str, words: str) -> None:
    assert left_by(statement) == words


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT setting FROM t",
        "UPDATE t SET a = 1",
        "INSERT INTO t (use_by) VALUES (%s)",
        "(SELECT 1) UNION (SELECT 2)",
        "CREATE TABLE temperatures (a INT)",
        "INSERT INTO temperatures VALUES (1)",
        "DELETE FROM locks",
        "SAVEPOINT sa_savepoint_1",
        "SELECT 1 /* SET by hand */",
        "SELECT 1;",
        "SELECT 1; \n-- SET\n;",
        "SELECT 1; SELECT 2",
        "INSERT INTO t VALUES ('a; SET b = 1')",
        "INSERT INTO t VALUES ('a := b', 'GET_LOCK')",
        r"INSERT INTO t VALUES ('it\'s; SET b = 1', 'C:\\')",
        r"INSERT INTO t VALUES ('C:\', '; SET b = 1')",
        'SELECT "a; SET b" FROM t',
        "SELECT `a; SET b` FROM t",
        "SELECT $x$ '; SET b $x$, $$; SET c$$",
        "# it's\nSELECT 1 -- it's\n",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "SELECT LAST_INSERT_ID()",
        "INSERT INTO t (n) VALUES (1) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id)",
        "UPDATE counters SET n = LAST_INSERT_ID(n + 1)",
        "EXPLAIN ANALYZE SELECT 1",
        "BEGIN",
    ],
)
def test_an_ordinary_statement_is_not_suspected(statement: str) -> None:
    assert left_by(statement) is None


@pytest.mark.parametrize("unclosed", ["/* ", "$a$ $b$ ", r"\' "])
def test_a_text_that_never_closes_what_it_opens_is_told_soon(unclosed: str) -> None:
    began_s = time.process_time()
    left_by("SELECT " + unclosed * 20_000)
    assert time.process_time() - began_s < 2
