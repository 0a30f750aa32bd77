from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import product

import pytest

from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.opening import GuardedConnection, open_writer
from penstock.channels.db.statements import (
    check_allowed,
    check_text,
    has_placeholder,
    may_write,
    shown,
    verb_of,
)
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

FORBIDDEN = [
    "BEGIN",
    "begin immediate",
    "COMMIT",
    "END TRANSACTION",
    "ROLLBACK",
    "ROLLBACK TO x",
    "SAVEPOINT x",
    "RELEASE x",
    "PRAGMA foreign_keys=OFF",
    "ATTACH 'other.db' AS other",
    "DETACH other",
    "VACUUM",
    "VACUUM INTO 'copy.db'",
]
DISGUISES = [
    "{}",
    " \t\r\n{}",
    ";{}",
    "-- x\n{}",
    "--\n--;\n;{}",
    "/* x */{}",
    "/**/;/***/ {}",
    "/*\n*/--\n{}",
    "\ufeff{}",
]


def test_what_reaches_other_callers_is_refused_in_any_disguise() -> None:
    for disguise, statement in product(DISGUISES, FORBIDDEN):
        with pytest.raises(DatabaseError, match=r"is refused: .*nothing was run") as caught:
            check_allowed(disguise.format(statement))
        assert caught.value.kind == "ProgrammingError"


def test_an_empty_statement_is_refused() -> None:
    for statement in ("", " ", ";", "-- SELECT 1", "/* SELECT 1", "/*/ SELECT 1", ";;--"):
        with pytest.raises(DatabaseError, match="it holds no statement"):
            check_allowed(statement)


def test_what_begins_with_no_verb_of_sqlites_is_refused() -> None:
    for statement in ("(SELECT 1)", "SELEC 1", "'BEGIN'", "1", "\x00SELECT 1"):
        with pytest.raises(DatabaseError, match="no statement of SQLite begins with"):
            check_allowed(statement)


@pytest.mark.parametrize(
    ("statement", "verb"),
    [
        ("select 1", "SELECT"),
        ("/* INSERT */ SELECT 1", "SELECT"),
        ("VALUES (1)", "VALUES"),
        ("EXPLAIN DELETE FROM t", "EXPLAIN"),
        ("WITH a AS (SELECT 1) SELECT * FROM a", "SELECT"),
        ("WITH a(x) AS (SELECT replace('DELETE','', '')), b AS (VALUES (1)) SELECT 1", "SELECT"),
        (
            "WITH RECURSIVE a AS NOT MATERIALIZED (SELECT ')') /* ) */ -- (\n INSERT INTO t SELECT * FROM a",
            "INSERT",
        ),
        ('WITH "insert" AS (SELECT 1), [delete] AS (SELECT 1), `update` AS (SELECT 1) SELECT 1', "SELECT"),
        ("WITH a AS (SELECT 1) UPDATE t SET v=1", "UPDATE"),
        ("with a as (select 1) delete from t", "DELETE"),
        ("REPLACE INTO t VALUES (1)", "REPLACE"),
        ("WITH a AS (SELECT 1)", "WITH"),
        ("CREATE TABLE t (x)", "CREATE"),
    ],
)
def test_the_verb_is_the_one_that_acts(statement: str, verb: str) -> None:
    assert verb_of(statement) == verb
    assert may_write(statement) == (verb not in {"SELECT", "VALUES", "EXPLAIN"})


def test_finding_the_verb_costs_the_statements_length_and_no_more() -> None:
    for filler in (" ", ";", "/*", "--\n", "/**/", "(", "'", "/* * "):
        began_s = time.process_time()
        verb_of(filler * 300_000 + "SELECT 1")
        verb_of("WITH a AS " + filler * 300_000)
        assert time.process_time() - began_s < 2


def test_what_is_no_text_is_refused_in_words() -> None:
    with pytest.raises(DatabaseError, match=r"type int is refused.*SQLAlchemy's such as select"):
        check_text(1)
    with pytest.raises(DatabaseError, match="lone surrogate"):
        check_text("SELECT '\ud800'")


@pytest.mark.parametrize(
    ("statement", "takes"),
    [
        ("INSERT INTO t VALUES (?)", True),
        ("INSERT INTO t VALUES (:v)", True),
        ("INSERT INTO t VALUES (@v)", True),
        ("INSERT INTO t VALUES (':v', \"?\", `@v`)", False),
        ("SELECT 1 -- :v\n, 2 /* ? */", False),
        ("SELECT x::text, 'it''s :v'", False),
    ],
)
def test_a_placeholder_is_told_from_what_looks_like_one(statement: str, takes: bool) -> None:
    assert has_placeholder(statement) == takes


def test_an_error_shows_the_beginning_of_a_statement_on_one_line() -> None:
    assert shown("SELECT\n  1") == "SELECT 1"
    assert shown("") == "an empty statement"
    assert len(shown("SELECT " + "x, " * 1_000_000)) == 161


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedConnection]:
    path = tmp_path_factory.mktemp("statements") / "app.db"
    opened = open_writer(DatabaseFile(str(path), is_uri=False), DatabaseSection(synchronous="OFF"))
    assert opened is not None
    with closing(opened):
        yield opened


def test_sqlite_itself_refuses_what_the_text_let_through(connection: GuardedConnection) -> None:
    hidden = [
        "EXPLAIN PRAGMA foreign_keys=OFF",
        "SELECT * FROM pragma_journal_mode",
        "SELECT load_extension('x')",
        "CREATE TEMP TABLE x (y)",
        "CREATE TEMPORARY VIEW x AS SELECT 1",
        "CREATE TABLE temp.x (y)",
        "CREATE VIRTUAL TABLE temp.x USING fts5 (body)",
        "CREATE VIEW temp.x AS SELECT 1",
    ]
    for statement in [d.format(s) for d, s in product(("{}", ";{}", "/**/{}"), FORBIDDEN)] + hidden:
        with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|prohibited|authorization denied"):
            connection.execute(statement).fetchall()
        assert not connection.in_transaction
        assert connection.control("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_temporary_trigger_on_a_table_of_the_file_is_refused(connection: GuardedConnection) -> None:
    # SQLite tells of it as of a trigger that is in the file.
    connection.control("CREATE TABLE watched (v)")
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        connection.execute("CREATE TRIGGER temp.x AFTER INSERT ON main.watched BEGIN SELECT 1; END")
    assert connection.control("SELECT count(*) FROM sqlite_temp_master").fetchone() == (0,)


def test_honest_work_on_the_schema_passes_sqlites_own_check(connection: GuardedConnection) -> None:
    for statement in [
        "CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT, d REFERENCES a)",
        "CREATE INDEX i ON a (b)",
        "CREATE VIEW w AS SELECT * FROM a",
        "CREATE TRIGGER g AFTER INSERT ON a BEGIN UPDATE a SET b = upper(b) WHERE id = new.id; END",
        "ALTER TABLE a ADD COLUMN c",
        "ALTER TABLE a RENAME COLUMN c TO e",
        "ALTER TABLE a DROP COLUMN e",
        "INSERT INTO a (b) VALUES ('x')",
        "CREATE VIRTUAL TABLE f USING fts5 (body)",
        "INSERT INTO f VALUES ('the quick fox')",
        "INSERT INTO f (f) VALUES ('optimize')",
        "CREATE VIRTUAL TABLE r USING rtree (id, x0, x1)",
        "ANALYZE",
        "REINDEX",
        "DROP VIEW w",
        "DROP TABLE f",
    ]:
        check_allowed(statement)
        connection.execute(statement)
    assert connection.execute("SELECT b FROM a").fetchall() == [("X",)]
    assert [row[1] for row in connection.execute("SELECT * FROM pragma_table_info('a')")] == ["id", "b", "d"]
