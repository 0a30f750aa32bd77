"""Group commit on a real file, without a loop: the group's results are those of each statement alone."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from penstock.channels.db.calls import Want
from penstock.channels.db.rows import Rows, unpacker
from penstock.channels.db.sqlite.database_file import DatabaseFile
from penstock.channels.db.sqlite.group import Finished, Outcome, Progress, Statement, run_group
from penstock.channels.db.sqlite.opening import GuardedConnection, open_writer
from penstock.channels.db.statements import is_grouped
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

SCHEMA = """
CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE, n INTEGER DEFAULT 0 CHECK (n < 5));
CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT, what);
CREATE TABLE strict_parent (id INTEGER PRIMARY KEY);
CREATE TABLE strict_child (id INTEGER PRIMARY KEY, parent REFERENCES strict_parent);
CREATE TRIGGER logged AFTER INSERT ON t BEGIN INSERT INTO log (what) VALUES (new.v); END;
CREATE TRIGGER stop AFTER UPDATE ON t WHEN new.n = 3 BEGIN SELECT RAISE(ROLLBACK, 'three takes all with it'); END;
"""
DEFERRED = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, buddy REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
"""
LIMIT_BYTES = 4096


def opened(path: Path, *, schema: str = SCHEMA) -> GuardedConnection:
    with closing(sqlite3.connect(path)) as plain:
        plain.executescript(schema)
    connection = open_writer(DatabaseFile(str(path), is_uri=False), DatabaseSection(synchronous="OFF"))
    assert connection is not None
    return connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[GuardedConnection]:
    with closing(opened(tmp_path / "app.db")) as connection:
        yield connection


def insert(value: object, how: str = "INSERT") -> Statement:
    return Statement(f"{how} INTO t (v) VALUES (?)", [value], "execute")


def run(connection: GuardedConnection, *statements: Statement, **options: Any) -> Finished:
    return run_group(connection, statements, limit_bytes=LIMIT_BYTES, progress=Progress(), **options)


def run_all(connection: GuardedConnection, statements: Sequence[Statement]) -> tuple[list[Outcome], int]:
    """As the writer does: what changes the schema goes alone, what was not run is run with the next group."""
    outcomes: list[Outcome] = []
    commits = 0
    while left := statements[len(outcomes) :]:
        together = list(takewhile(lambda statement: is_grouped(statement.text), left)) or left[:1]
        finished = run(connection, *together)
        ran = [outcome for outcome in finished.outcomes if outcome is not None]
        assert ran, "a group that runs nothing never ends"
        assert finished.outcomes[: len(ran)] == ran
        assert not connection.in_transaction
        outcomes += ran
        commits += finished.commits
    return outcomes, commits


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as plain:
        return list(plain.iterdump())


def values(connection: GuardedConnection) -> list[Any]:
    return [v for (v,) in connection.execute("SELECT v FROM t ORDER BY id")]


def shape(outcome: Outcome | None) -> object:
    """What a caller can see of an outcome."""
    if isinstance(outcome, Rows):
        return [row for piece in outcome.pieces for row in unpacker(outcome.columns, None)(piece)]
    if isinstance(outcome, DatabaseError):
        return outcome.kind, str(outcome).partition(";")[0]
    return outcome


def test_a_group_has_one_commit_and_a_failure_in_it_costs_itself_alone(connection: GuardedConnection) -> None:
    assert run(connection, insert("a"), insert("b")).commits == 1
    finished = run(connection, insert("c"), insert("a"), insert("d"))
    assert [shape(outcome) for outcome in finished.outcomes] == [
        1,
        ("IntegrityError", "UNIQUE constraint failed: t.v"),
        1,
    ]
    assert finished.commits == 1
    assert values(connection) == ["a", "b", "c", "d"]


def test_nothing_of_a_statement_that_failed_halfway_stays(connection: GuardedConnection) -> None:
    halfway = Statement("INSERT OR FAIL INTO t (v) VALUES ('x'), ('a'), ('y')", None, "execute")
    finished = run(connection, insert("a"), halfway, insert("b"))
    assert isinstance(finished.outcomes[1], DatabaseError)
    assert values(connection) == ["a", "b"]


def test_a_statement_that_takes_the_transaction_with_it_takes_nobody_elses_work(
    connection: GuardedConnection,
) -> None:
    finished = run(connection, insert("a"), insert("b"), insert("a", "INSERT OR ROLLBACK"), insert("c"))
    assert [shape(outcome) for outcome in finished.outcomes] == [
        1,
        1,
        ("IntegrityError", "UNIQUE constraint failed: t.v"),
        None,
    ]
    assert finished.commits == 2
    assert values(connection) == ["a", "b"]
    assert run_all(connection, [insert("c")]) == ([1], 1)


def test_nobody_is_healed_by_a_neighbours_row(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "app.db", schema=SCHEMA + DEFERRED)) as connection:
        finished = run(
            connection,
            Statement("INSERT INTO child (parent) VALUES (7)", None, "execute"),
            Statement("INSERT INTO parent (id) VALUES (7)", None, "execute"),
        )
        assert [shape(outcome) for outcome in finished.outcomes] == [
            ("IntegrityError", "FOREIGN KEY constraint failed"),
            1,
        ]
        assert connection.execute("SELECT count(*) FROM child").fetchone() == (0,)


def test_a_table_with_deferred_keys_is_noticed_when_it_appears(connection: GuardedConnection) -> None:
    assert run(connection, insert("a"), insert("b")).commits == 1
    for statement in DEFERRED.strip().splitlines():
        assert run(connection, Statement(statement, None, "execute")).outcomes == [0]
    assert run(connection, insert("c"), insert("d")).commits == 2


def test_a_group_ends_with_its_time_and_leaves_the_rest_to_the_next(connection: GuardedConnection) -> None:
    finished = run(connection, insert("a"), insert("b"), insert("c"), budget_s=0)
    assert finished.outcomes == [1, None, None]
    assert finished.commits == 1
    with_alone = [Statement(f"CREATE TABLE x{n} (y)", None, "execute") for n in range(3)]
    assert run(connection, *with_alone, budget_s=0).outcomes == [0, None, None]


def test_what_is_run_once_more_has_as_long_again(connection: GuardedConnection) -> None:
    def slowly(value: int) -> int:
        time.sleep(0.2)
        return value

    connection.create_function("slowly", 1, slowly)
    slow = [Statement(f"INSERT INTO t (v) VALUES (slowly({number}))", None, "execute") for number in range(2)]
    finished = run(connection, *slow, insert(0), insert("last"), budget_s=0.5)
    assert None not in finished.outcomes, "the failure cost those before it their time"
    assert finished.commits == 1


def test_returned_rows_come_whole_and_with_the_count_of_all(connection: GuardedConnection) -> None:
    text = "INSERT INTO t (v) VALUES (1), (2), (3) RETURNING id, v AS value"
    assert [shape(o) for o in run(connection, Statement(text, None, "fetch_all"), insert(9)).outcomes] == [
        [{"id": 1, "value": 1}, {"id": 2, "value": 2}, {"id": 3, "value": 3}],
        1,
    ]
    finished = run(
        connection,
        Statement("UPDATE t SET n = 1 RETURNING v", None, "fetch_one"),
        Statement("UPDATE t SET n = 2 RETURNING v", None, "execute"),
    )
    assert [shape(outcome) for outcome in finished.outcomes] == [[{"v": 1}], 4]
    assert connection.execute("SELECT DISTINCT n FROM t").fetchall() == [(2,)]


def test_a_statement_whose_rows_fit_no_frame_changes_nothing(connection: GuardedConnection) -> None:
    text = "INSERT INTO t (v) VALUES (:a), (:b) RETURNING v"
    wide = Statement(text, {"a": "a" * LIMIT_BYTES, "b": "b"}, "fetch_all")
    finished = run(connection, insert("before"), wide, insert("after"))
    assert isinstance(finished.outcomes[1], DatabaseError)
    assert "LIMIT" in str(finished.outcomes[1])
    assert values(connection) == ["before", "after"]


@pytest.mark.parametrize("group", [1, 3])
def test_a_full_disk_is_each_callers_own_error_and_is_over_when_there_is_room(
    connection: GuardedConnection, group: int
) -> None:
    (pages,) = connection.control("PRAGMA page_count").fetchone()
    connection.control(f"PRAGMA max_page_count={pages + 3}").close()
    big = [Statement("INSERT INTO t (v) VALUES (zeroblob(9000) || ?)", [n], "execute") for n in range(group)]
    outcomes, _ = run_all(connection, [insert("small"), *big])
    assert outcomes[0] == 1
    assert any(
        isinstance(outcome, DatabaseError)
        and str(outcome).startswith("the database's disk is full: make room")
        for outcome in outcomes
    )
    connection.control("PRAGMA max_page_count=1000000").close()
    outcomes, _ = run_all(connection, [insert(f"there is room {n}") for n in range(100)])
    assert outcomes == [1] * 100
    assert connection.control("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_held_by_somebody_else_is_told_and_nothing_was_run(
    connection: GuardedConnection, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for statements in ([insert("a")], [insert("a"), insert("b")]):
            finished = run(connection, *statements)
            assert finished.is_locked
            assert finished.outcomes == [None] * len(statements)
        other.execute("COMMIT")
    assert run(connection, insert("a"), insert("b")).outcomes == [1, 1]


def test_the_words_of_an_error_hold_the_statement_and_never_a_parameter(
    connection: GuardedConnection,
) -> None:
    (outcome,) = run(
        connection, Statement("INSERT INTO t (v, n) VALUES (:v, 9)", {"v": "S3CR3T"}, "execute")
    ).outcomes
    assert "INSERT INTO t (v, n) VALUES (:v, 9)" in str(outcome)
    assert "S3CR3T" not in str(outcome)


@pytest.mark.parametrize(
    ("text", "parameters", "kind"),
    [
        ("INSERT INTO t (v) VALUES (:v)", {"w": 1}, "ProgrammingError"),
        ("INSERT INTO t (v) VALUES (?)", [1, 2], "ProgrammingError"),
        ("INSERT INTO nowhere VALUES (1)", None, "OperationalError"),
        ("INSERT INTO t (v) VALUES (1); DELETE FROM t", None, "ProgrammingError"),
        ("INSERT INTO t (v) VALUES (1)\0", None, "ProgrammingError"),
        ("INSERT INTO t (v) VALUES", None, "OperationalError"),
    ],
)
def test_a_mistake_in_a_statement_is_its_callers_answer(
    connection: GuardedConnection, text: str, parameters: Any, kind: str
) -> None:
    finished = run(connection, insert("before"), Statement(text, parameters, "execute"), insert("after"))
    assert isinstance(finished.outcomes[1], DatabaseError)
    assert finished.outcomes[1].kind == kind
    assert values(connection) == ["before", "after"]


# The property: whatever comes together, each outcome and the file afterwards are those of each alone.


def random_statement(rng: random.Random, *, deferred: bool) -> Statement:
    key, other, n = rng.randint(1, 6), rng.randint(1, 6), rng.randint(0, 6)
    verb = rng.choice(
        [
            "INSERT",
            "INSERT",
            "INSERT",
            "INSERT OR ROLLBACK",
            "INSERT OR FAIL",
            "INSERT OR IGNORE",
            "INSERT OR ABORT",
            "REPLACE",
        ]
    )
    choices: list[tuple[str, Any, Want]] = [
        (f"{verb} INTO t (v) VALUES (?)", [key], "execute"),
        (f"{verb} INTO t (v, n) VALUES (?, ?), (?, ?)", [key, n, other, 1], "execute"),
        (f"{verb} INTO t (id, v) VALUES (:id, :v) RETURNING id, v", {"id": key, "v": other}, "fetch_all"),
        ("UPDATE t SET n = ? WHERE v = ?", [n, key], "execute"),
        ("UPDATE OR ROLLBACK t SET v = ? WHERE v = ?", [key, other], "execute"),
        ("DELETE FROM t WHERE v = ? RETURNING v", [key], "fetch_one"),
        ("SELECT count(*) AS n, total(v) AS s FROM t", None, "fetch_one"),
        ("WITH w AS (SELECT ? AS v) INSERT INTO t (v) SELECT v FROM w", [key], "execute"),
        ("INSERT INTO strict_parent VALUES (?)", [key], "execute"),
        ("INSERT INTO strict_child (parent) VALUES (?)", [key], "execute"),
        ("DELETE FROM strict_parent WHERE id = ?", [key], "execute"),
        ("INSERT INTO missing VALUES (?)", [key], "execute"),
        ("INSERT INTO t (v) VALUES (?, ?)", [key], "execute"),
        ("UPDATE t SET", None, "execute"),
        (f"CREATE TABLE IF NOT EXISTS x{key} (y)", None, "execute"),
        (f"DROP TABLE x{key}", None, "execute"),
    ]
    if deferred:
        more: list[tuple[str, Any, Want]] = [
            ("INSERT INTO child (parent) VALUES (?)", [key], "execute"),
            ("INSERT INTO parent VALUES (?, ?)", [key, rng.choice([None, other])], "execute"),
            ("UPDATE parent SET id = id + 10 WHERE id = ?", [key], "execute"),
            ("DELETE FROM parent WHERE id = ?", [key], "execute"),
            ("DELETE FROM child WHERE parent = ?", [key], "execute"),
        ]
        choices += 2 * more
    return Statement(*rng.choice(choices))


def run_alone(plain: sqlite3.Connection, statement: Statement) -> object:
    """The oracle: sqlite3 by itself, a transaction a statement."""
    plain.execute("BEGIN IMMEDIATE")
    try:
        cursor = plain.execute(statement.text, statement.parameters or ())
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description or ()]
        plain.execute("COMMIT")
    except sqlite3.Error as error:
        if plain.in_transaction:
            plain.execute("ROLLBACK")
        return type(error).__name__, str(error)
    if statement.want == "execute":
        return max(cursor.rowcount, 0)
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return found if statement.want == "fetch_all" else found[:1]


@pytest.mark.parametrize("deferred", [False, True])
def test_whatever_comes_together_ends_as_each_alone(tmp_path: Path, deferred: bool) -> None:
    rng = random.Random(20260131)
    schema = SCHEMA + (DEFERRED if deferred else "")
    seen_errors: set[str] = set()
    commits = succeeded = 0
    for sequence in range(60):
        statements = [random_statement(rng, deferred=deferred) for _ in range(rng.randint(1, 40))]
        with (
            closing(opened(tmp_path / f"group{sequence}.db", schema=schema)) as grouped,
            closing(sqlite3.connect(":memory:", isolation_level=None)) as plain,
        ):
            plain.executescript(f"PRAGMA foreign_keys=ON; {schema}")
            expected = [run_alone(plain, statement) for statement in statements]
            outcomes, needed = run_all(grouped, statements)
            commits += needed
            succeeded += sum(not isinstance(outcome, DatabaseError) for outcome in outcomes)
            assert [shape(outcome) for outcome in outcomes] == expected, statements
            assert dump(tmp_path / f"group{sequence}.db") == list(plain.iterdump()), statements
            seen_errors |= {str(result[1]) for result in expected if isinstance(result, tuple)}
    # The sequences must have been worth the trouble.
    words = ["UNIQUE", "CHECK", "FOREIGN KEY", "three takes all", "no such table", "syntax error|incomplete"]
    for word in words:
        assert any(part in error for part in word.split("|") for error in seen_errors), (word, seen_errors)
    assert succeeded > 400
    # Only without deferred keys may they share commits, and then they do.
    assert commits == succeeded if deferred else commits < succeeded * 0.7
