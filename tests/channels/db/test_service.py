"""The database channel as an async handler meets it: statements, results, refusals, opening and closing."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from penstock.channels.db.service import DatabaseService
from penstock.config.database import DatabaseSection
from penstock.errors import ChannelClosed, ConfigurationError, DatabaseError
from tests.channels.conftest import LIMIT_BYTES, MakeService, local, until


async def test_statements_run_and_each_is_its_own_transaction(
    service: DatabaseService, database: Path
) -> None:
    db = local(service)
    assert await db.execute("INSERT INTO t (v) VALUES (:v)", {"v": "a"}) == 1
    assert await db.execute("INSERT INTO t (v) VALUES (?), (?)", ("b", None)) == 2
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("SELECT count(*) FROM t").fetchone() == (3,)
    assert await db.execute("UPDATE t SET v = 1 WHERE v = 'nobody'") == 0
    assert await db.execute("SELECT * FROM t") == 0
    assert await db.fetch_one("SELECT v FROM t WHERE id = ?", [2]) == {"v": "b"}
    assert await db.fetch_one("SELECT v FROM t WHERE id = 99") is None
    assert await db.fetch_all("SELECT id, v FROM t ORDER BY id") == [
        {"id": 1, "v": "a"},
        {"id": 2, "v": "b"},
        {"id": 3, "v": None},
    ]


async def test_every_kind_of_value_arrives_as_sqlite_stores_it(service: DatabaseService) -> None:
    values = [
        None,
        2**63 - 1,
        -(2**63),
        1.5,
        "ä\0",
        b"\0\xff",
        True,
        Decimal("9.90"),
        dt.date(2026, 1, 31),
        UUID(int=1),
    ]
    row = await local(service).fetch_one(
        f"SELECT {', '.join(f'? AS c{n}' for n in range(len(values)))}", values
    )
    assert row is not None
    assert list(row.values()) == [
        *(None, 2**63 - 1, -(2**63), 1.5, "ä\0", b"\0\xff"),
        *(1, "9.90", "2026-01-31", "0" * 31 + "1"),
    ]


async def test_of_two_columns_with_one_name_the_last_wins(service: DatabaseService) -> None:
    assert await local(service).fetch_all("SELECT 1 AS a, 2 AS a, 3 AS b") == [{"a": 2, "b": 3}]


async def test_a_read_sees_what_was_written_before_it(service: DatabaseService) -> None:
    db = local(service)
    for number in range(50):
        await db.execute("INSERT INTO t (v) VALUES (?)", (number,))
        assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": number + 1}


async def test_a_write_that_gives_rows_is_a_write(service: DatabaseService) -> None:
    db = local(service)
    assert await db.fetch_all("INSERT INTO t (v) VALUES (1), (2) RETURNING id") == [{"id": 1}, {"id": 2}]
    text = "WITH w AS (SELECT 3 AS v) INSERT INTO t (v) SELECT v FROM w RETURNING v"
    assert await db.fetch_one(text) == {"v": 3}
    assert await db.fetch_all("INSERT INTO t (v) VALUES (4)") == []
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 4}


async def test_a_write_that_the_text_does_not_show_goes_to_the_writer(
    service: DatabaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Taken for a read, a write meets SQLite's own refusal on the reader, and nothing of it is run there.
    monkeypatch.setattr("penstock.channels.db.sqlite.service.may_write", lambda _: False)
    assert await local(service).fetch_all("INSERT INTO t (v) VALUES (1) RETURNING v") == [{"v": 1}]
    assert await local(service).fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}


async def test_an_error_names_the_drivers_kind_and_the_statement(service: DatabaseService) -> None:
    db = local(service)
    await db.execute("INSERT INTO t (v) VALUES (1)")
    with pytest.raises(
        DatabaseError, match=r"UNIQUE constraint failed: t\.v; nothing .* kept: INSERT INTO t"
    ) as caught:
        await db.execute("INSERT INTO t (v) VALUES (1)")
    assert caught.value.kind == "IntegrityError"
    with pytest.raises(DatabaseError, match="no such table: nowhere"):
        await db.fetch_all("SELECT * FROM nowhere")


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_what_reaches_other_callers_is_refused(service: DatabaseService, in_transaction: bool) -> None:
    db = local(service)
    refused = [
        "COMMIT",
        "/**/ROLLBACK",
        "PRAGMA foreign_keys=OFF",
        "ATTACH 'x' AS x",
        "SELECT load_extension('x')",
        "",
    ]

    async def try_all() -> None:
        for statement in refused:
            with pytest.raises(DatabaseError, match=r"refused|not authorized"):
                await db.execute(statement)
        await db.execute("INSERT INTO t (v) VALUES (1)")

    if in_transaction:
        async with db.transaction():
            await try_all()
    else:
        await try_all()
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}


async def test_the_file_is_opened_as_the_settings_say(make_service: MakeService, database: Path) -> None:
    service = make_service(synchronous="NORMAL")
    await service.start()
    assert not database.exists(), "starting opens nothing"  # noqa: ASYNC240
    db = local(service)
    await db.execute("CREATE TABLE p (id INTEGER PRIMARY KEY)")
    await db.execute("CREATE TABLE c (p REFERENCES p)")
    with pytest.raises(DatabaseError, match="FOREIGN KEY"):
        await db.execute("INSERT INTO c VALUES (1)")
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert service._sqlite._writer is not None
    pragma = "PRAGMA synchronous"
    thread = service._sqlite._writer._thread
    assert await thread._run(
        lambda: thread._connection and thread._connection.control(pragma).fetchone()
    ) == (1,)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "set database.url"),
        (
            "oracle://me:S3CR3T@host/name",
            r"speaks SQLite, MySQL, .*oracle://me:\*\*\*@host/name",
        ),
    ],
)
async def test_a_url_that_cannot_be_used_is_told_at_the_first_use(url: str | None, words: str) -> None:
    service = DatabaseService(DatabaseSection.model_validate({"url": url}), frame_bytes=LIMIT_BYTES)
    await service.start()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=words) as caught:
            await local(service).execute("SELECT 1")
        assert "S3CR3T" not in str(caught.value)
    await service.aclose()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "in memory"),
        ("sqlite:////tmp", "leads to a folder: name a file in it, such as tmp/app.db"),
        ("sqlite:///file:/tmp?uri=true", "leads to a folder"),
        ("app.db", "is not a URL"),
    ],
)
async def test_a_file_that_no_call_could_use_is_told_at_the_start(url: str, words: str) -> None:
    service = DatabaseService(DatabaseSection.model_validate({"url": url}), frame_bytes=LIMIT_BYTES)
    with pytest.raises(ConfigurationError, match=words):
        await service.start()
    await service.aclose()


async def test_a_file_that_cannot_be_opened_is_an_error_of_the_call_and_is_tried_again(
    make_service: MakeService, database: Path
) -> None:
    service = make_service(url=f"sqlite:///{database.parent}/missing/app.db")
    for _ in range(2):
        with pytest.raises(DatabaseError, match=r"unable to open database file.*opening app\.db"):
            await local(service).execute("CREATE TABLE t (x)")
    (database.parent / "missing").mkdir()
    assert await local(service).execute("CREATE TABLE t (x)") == 0


async def test_what_is_no_database_is_an_error_in_words(make_service: MakeService, database: Path) -> None:
    database.write_bytes(b"this is no database" * 1000)  # noqa: ASYNC240
    service = make_service()
    with pytest.raises(DatabaseError, match="file is not a database"):
        await local(service).fetch_all("SELECT 1")


async def test_stopping_before_the_start_and_twice_is_harmless_and_calls_after_it_are_told(
    make_service: MakeService,
) -> None:
    service = make_service()
    await service.aclose()
    await service.start()
    await local(service).execute("CREATE TABLE t (x)")
    await service.aclose()
    await service.aclose()
    with pytest.raises(ChannelClosed, match="the service is stopping"):
        await local(service).execute("INSERT INTO t VALUES (1)")
    await service.start()
    assert await local(service).execute("INSERT INTO t VALUES (1)") == 1


async def test_stopping_rolls_back_what_is_open_and_refuses_what_waits(
    service: DatabaseService, make_service: MakeService
) -> None:
    async with asyncio.timeout(20):
        holder = local(service, "holder")
        block = holder.transaction()
        await block.__aenter__()
        await holder.execute("INSERT INTO t (v) VALUES ('open')")
        waiting = asyncio.create_task(local(service).execute("INSERT INTO t (v) VALUES ('waits')"))
        await until(lambda: (counts := service.statistics()) is not None and counts.waiting == 1)
        await service.aclose()
        with pytest.raises(ChannelClosed, match="nothing of the statement was run"):
            await waiting
        with pytest.raises(DatabaseError, match="the transaction is over"):
            await block.__aexit__(None, None, None)
    assert await local(make_service()).fetch_one("SELECT count(*) AS n FROM t") == {"n": 0}


async def test_the_representation_shows_what_is_happening(service: DatabaseService) -> None:
    assert "0 waiting, held by nobody" in repr(service)
    async with local(service, "slot 3").transaction() as tx:
        await tx.execute("INSERT INTO t (v) VALUES (1)")
        assert "held by slot 3, in a transaction open for 0." in repr(service)
        assert "(last statement: INSERT INTO t (v) VALUES (1))" in repr(service)


async def test_commits_are_counted_by_what_they_kept(make_service: MakeService) -> None:
    service = make_service()
    db = local(service)

    def commits() -> dict[int, int]:
        statistics = service.statistics()
        assert statistics is not None
        return dict(statistics.group_commits)

    with pytest.raises(DatabaseError):
        await db.execute("INSERT INTO nowhere VALUES (1)")
    assert commits() == {}
    await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    assert commits() == {1: 1}

    async def write_together(*values: int) -> None:
        async with db.transaction():
            writing = [
                asyncio.create_task(local(service, str(n)).execute("INSERT INTO t VALUES (?)", [value]))
                for n, value in enumerate(values)
            ]
            await until(lambda: (now := service.statistics()) is not None and now.waiting == len(values))
        await asyncio.gather(*writing, return_exceptions=True)

    await write_together(1, 2, 3)
    assert commits() == {1: 1, 3: 1}
    await write_together(4, 4, 1)
    assert commits() == {1: 2, 3: 1}
    await write_together(1, 2, 3)
    assert commits() == {1: 2, 3: 1}
