"""What a handler does past SQLAlchemy, on SQLite's own connection, is part of its message: committed with it or not at all."""

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from penstock.errors import TransactionUndone
from penstock.workers.connection import OwnConnection
from tests.workers.own_connection import ITEMS, Worker, names_in


def raw(own: OwnConnection) -> Any:
    return own.connection.connection.driver_connection


def put(own: OwnConnection, name: str) -> None:
    own.connection.execute(insert(ITEMS).values(name=name))


def put_raw(own: OwnConnection, name: str) -> None:
    raw(own).execute("INSERT INTO item (name) VALUES (?)", (name,))


def undo_all(own: OwnConnection) -> None:
    put(own, "there")
    with suppress(sqlite3.IntegrityError):
        raw(own).execute("INSERT OR ROLLBACK INTO item (name) VALUES ('there')")


def by_the_driver_first(own: OwnConnection) -> None:
    put_raw(own, "cup")
    for name in ("plate", "fork", "spoon"):
        put(own, name)


def by_the_driver_alone(own: OwnConnection) -> None:
    put_raw(own, "cup")
    raw(own).executemany("INSERT INTO item (name) VALUES (?)", [("plate",), ("fork",)])
    raw(own).execute("WITH n(name) AS (VALUES ('spoon')) INSERT INTO item (name) SELECT name FROM n")


def by_a_script(own: OwnConnection) -> None:
    put(own, "cup")
    raw(own).executescript("""
        INSERT INTO item (name) VALUES ('plate;');   -- a comment; not an end
        INSERT INTO item (name) VALUES ('fork') RETURNING id;
        SELECT * FROM item;
        -- the end
    """)
    put(own, "spoon")


def by_a_script_alone(own: OwnConnection) -> None:
    raw(own).executescript("INSERT INTO item (name) VALUES ('a'); INSERT INTO item (name) VALUES ('b')")
    raw(own).cursor().executescript("INSERT INTO item (name) VALUES ('c'), ('d')")


def with_savepoints(own: OwnConnection) -> None:
    for name in "abcd":
        raw(own).execute("SAVEPOINT mine")
        put_raw(own, name)
        raw(own).execute("RELEASE mine")


def with_the_drivers_own_mode_set_again(own: OwnConnection) -> None:
    put(own, "a")
    raw(own).isolation_level = None
    for name in "bcd":
        put_raw(own, name)


@pytest.mark.parametrize(
    "work",
    [
        by_the_driver_first, by_the_driver_alone, by_a_script, by_a_script_alone, with_savepoints, with_the_drivers_own_mode_set_again,
    ],
    ids=lambda work: work.__name__,
)  # fmt: skip
def test_it_is_committed_with_the_message_or_not_at_all(
    worker: Worker, path: Path, work: Callable[[OwnConnection], None]
) -> None:
    def failing(own: OwnConnection) -> None:
        work(own)
        assert names_in(path) == []
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        worker.message(failing)
    assert names_in(path) == []
    before = worker.driver_connection()
    worker.message(work)
    assert len(names_in(path)) == 4
    assert worker.driver_connection() is before


def test_what_follows_a_commit_by_text_is_a_transaction_of_its_own(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        put(own, "cup")
        own.connection.exec_driver_sql("COMMIT")
        with own.connection.begin_nested():
            put(own, "plate")
        put(own, "fork")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        worker.message(handler)
    assert names_in(path) == ["cup"]


def by_text(own: OwnConnection) -> None:
    raw(own).execute("/* so */ commit")


def by_end(own: OwnConnection) -> None:
    own.connection.exec_driver_sql("END TRANSACTION")


def by_a_block(own: OwnConnection) -> None:
    with raw(own):
        put_raw(own, "fork")


def by_a_script_that_commits(own: OwnConnection) -> None:
    raw(own).executescript("INSERT INTO item (name) VALUES ('fork'); COMMIT")


@pytest.mark.parametrize(
    "commit", [by_text, by_end, by_a_block, by_a_script_that_commits], ids=lambda commit: commit.__name__
)
def test_half_a_transaction_is_not_committed_in_any_way(
    worker: Worker, path: Path, commit: Callable[[OwnConnection], None]
) -> None:
    def handler(own: OwnConnection) -> None:
        undo_all(own)
        put(own, "plate")
        commit(own)

    with pytest.raises(TransactionUndone):
        worker.message(handler)
    assert names_in(path) == []


@pytest.mark.parametrize("again", ["ROLLBACK", "rollback()"])
def test_after_a_rollback_there_is_nothing_half_any_more(worker: Worker, path: Path, again: str) -> None:
    def handler(own: OwnConnection) -> None:
        undo_all(own)
        if again == "ROLLBACK":
            raw(own).execute("ROLLBACK")
        else:
            raw(own).rollback()
        put(own, "cup")

    worker.message(handler)
    assert names_in(path) == ["cup"]
