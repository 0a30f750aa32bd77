"""SQLite's file replaced under the channel: nothing is answered that went into the old one, and the new one is opened."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.channels.db.sqlite import database_file
from penstock.errors import DatabaseBusy
from tests.channels.conftest import local


@pytest.fixture(autouse=True)
def _look_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_file, "_LOOK_EACH_S", 0.0)


def _replace(path: Path) -> None:
    """As somebody who brings back a copy."""
    other = path.with_name("restored.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v UNIQUE)")
        connection.execute("INSERT INTO t (v) VALUES ('restored')")
        connection.commit()
    _remove_logs(path)
    other.replace(path)


def _remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _values(path: Path) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("SELECT v FROM t ORDER BY id")]


async def test_who_writes_and_who_reads_is_in_the_new_file(service: DatabaseService, database: Path) -> None:
    db = local(service)
    await db.execute("INSERT INTO t (v) VALUES ('old')")
    assert await db.fetch_all("SELECT v FROM t") == [{"v": "old"}]
    assert [row async for row in db.stream("SELECT v FROM t")] == [{"v": "old"}]
    _replace(database)
    assert [row async for row in db.stream("SELECT v FROM t")] == [{"v": "restored"}]
    assert await db.fetch_all("SELECT v FROM t") == [{"v": "restored"}]
    await db.execute("INSERT INTO t (v) VALUES ('new')")
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES ('in a block')")
    assert _values(database) == ["restored", "new", "in a block"]


@pytest.mark.parametrize("count", [1, 3])
async def test_writes_that_were_running_run_again_in_the_new_file(
    service: DatabaseService, database: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    # Given a file that is replaced between a group's statements and their commit
    await local(service).execute("INSERT INTO t (v) VALUES ('old')")
    assert service._sqlite._writer is not None
    connection = service._sqlite._writer._thread._connection
    assert connection is not None
    control = type(connection).control

    def replacing(self: object, statement: str) -> sqlite3.Cursor:
        done = control(connection, statement) if self is connection else control(self, statement)  # type: ignore[arg-type]
        if self is connection and statement == "BEGIN IMMEDIATE":
            _replace(database)
        return done

    monkeypatch.setattr(type(connection), "control", replacing)
    # When several write
    changed = await asyncio.gather(
        *(local(service).execute("INSERT INTO t (v) VALUES (:v)", {"v": n}) for n in range(count))
    )
    # Then all that was answered is there
    assert changed == [1] * count
    assert _values(database) == ["restored", *range(count)]


async def test_a_transaction_of_the_old_file_is_not_committed(
    service: DatabaseService, database: Path
) -> None:
    db = local(service)
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES ('lost')")
        _replace(database)
        with pytest.raises(
            DatabaseBusy, match=r"app\.db is another one now; nothing of the transaction was kept"
        ):
            await tx.__aexit__(None, None, None)
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES ('again')")
    assert _values(database) == ["restored", "again"]


async def test_a_file_that_has_gone_is_waited_for_and_not_made_anew(
    service: DatabaseService, database: Path
) -> None:
    db = local(service)
    await db.fetch_all("SELECT v FROM t")
    moved = await asyncio.to_thread(database.rename, database.with_name("moved.db"))
    words = r"app\.db has gone; put it back, or restart the service to begin with an empty one; nothing of the statement was run"
    for _ in range(2):
        for call in (
            db.execute("INSERT INTO t (v) VALUES ('lost')"),
            db.fetch_all("SELECT v FROM t"),
            anext(db.stream("SELECT v FROM t")),
            db.transaction().__aenter__(),
        ):
            with pytest.raises(DatabaseBusy, match=words):
                await call
    assert not await asyncio.to_thread(database.exists), (
        "an empty database in its place would fail every message"
    )
    await asyncio.to_thread(moved.rename, database)
    await db.execute("INSERT INTO t (v) VALUES ('back')")
    assert await db.fetch_all("SELECT v FROM t") == [{"v": "back"}]


async def test_the_file_is_looked_for_once_a_second(
    service: DatabaseService, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "_LOOK_EACH_S", 60.0)
    looks: list[Path] = []
    stat = Path.stat

    def counting(self: Path) -> os.stat_result:
        looks.append(self)
        return stat(self)

    db = local(service)
    await db.fetch_all("SELECT v FROM t")
    monkeypatch.setattr(Path, "stat", counting)
    for number in range(20):
        await db.execute("INSERT INTO t (v) VALUES (?)", (number,))
        await db.fetch_all("SELECT v FROM t")
    assert looks == []
