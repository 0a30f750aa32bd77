"""SQLAlchemy's statements over `ctx.db`: compiled where they were made, and what comes back is what a connection gives."""

from __future__ import annotations

import asyncio
import datetime as dt
import enum
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Date,
    DateTime,
    Engine,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Time,
    TypeDecorator,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    delete,
    event,
    exists,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, mapped_column
from sqlalchemy.schema import CreateTable

from penstock import App, AsyncContext, Context
from penstock.channels.db import compiling
from penstock.errors import DatabaseError
from penstock.testing import Worker
from tests.channels.db.databases import Case


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Backwards(TypeDecorator[str]):
    """A type of an application's."""

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        del dialect
        return None if value is None else value[::-1]

    process_result_value = process_bind_param


metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("when", DateTime),
    Column("day", Date),
    Column("hour", Time),
    Column("span", Interval),
    Column("price", Numeric(12, 4)),
    Column("ratio", Float),
    Column("cents", Numeric(10, 2, asdecimal=False)),
    Column("exactly", Float(53, asdecimal=True)),
    Column("data", JSON),
    Column("colour", Enum(Colour)),
    Column("uid", Uuid),
    Column("uid_text", Uuid(as_uuid=False)),
    Column("raw", LargeBinary),
    Column("flag", Boolean),
    Column("name", Backwards),
    Column("odd: name%", String(40), key="odd"),
)
VALUES: dict[str, Any] = {
    "id": 1,
    "when": dt.datetime(2026, 1, 31, 13, 5, 0),  # noqa: DTZ001 - as the column has it
    "day": dt.date(2026, 1, 31),
    "hour": dt.time(13, 5, 1),
    "span": dt.timedelta(days=2, seconds=3),
    "price": Decimal("12345678.1234"),
    "ratio": 0.25,
    "cents": 9.99,
    "exactly": Decimal("0.5"),
    "data": {"a": [1, {"b": None}], "c": "it's :x %s"},
    "colour": Colour.BLUE,
    "uid": UUID(int=5),
    "uid_text": str(UUID(int=6)),
    "raw": b"\0\xff",
    "flag": True,
    "name": "ä%:n",
    "odd": "a:b::c %(x)s",
}
EMPTY = dict.fromkeys(VALUES) | {"id": 2}

made = MetaData()
defaults = Table(
    "defaults",
    made,
    Column("id", Integer, primary_key=True),
    Column("scalar", Integer, default=7, onupdate=8),
    Column("called", Uuid, default=uuid4),
    Column("beside", Integer, default=lambda context: context.get_current_parameters()["scalar"] * 10),
    Column("in_sql", Integer, default=select(func.max(3)).scalar_subquery()),
    Column("by_server", Integer, server_default="5"),
)


class Model(DeclarativeBase):
    pass


class Book(Model):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(40))


async def test_values_of_every_type_are_what_a_connection_gives(each: Case) -> None:
    db = await each.local(metadata)
    assert await db.execute(insert(things).values(**VALUES)) == 1
    each.plain(insert(things).values(EMPTY))
    rows = await db.fetch_all(select(things).order_by(things.c.id))
    assert rows == each.plain(select(things).order_by(things.c.id))
    # Both ways wrote the same: not only is what one wrote read by the other.
    first = dict(rows[0])
    assert first.pop("odd: name%") == VALUES["odd"]
    assert first == {key: value for key, value in VALUES.items() if key != "odd"}
    assert {key: type(value) for key, value in first.items()} == {
        key: type(value) for key, value in VALUES.items() if key != "odd"
    }
    for key, value in VALUES.items():
        column = things.c[key]
        if not isinstance(column.type, JSON | Float):
            assert await db.fetch_one(select(things.c.id).where(column == value)) == {"id": 1}, key


async def test_what_a_connection_wrote_and_the_channel_wrote_is_stored_alike(each: Case) -> None:
    db = await each.local(metadata)
    await db.execute(insert(things).values(**VALUES))
    each.plain(insert(things).values({**VALUES, "id": 3}))
    raw = each.plain(text("SELECT * FROM things ORDER BY id"))
    assert {**raw[0], "id": 3} == raw[1]


other = things.alias("other")
STATEMENTS: list[Any] = [
    select(things.c.id, things.c.id, literal_column("3"), func.count(things.c.id))
    .group_by(things.c.id)
    .order_by(things.c.id),
    select(things.c.id).where(things.c.id.in_([1, 2, 9])),
    select(things.c.id).where(things.c.id.in_([])),
    select(things.c.id).where(things.c.id.not_in(bindparam("ids", [9], expanding=True))),
    select(things.c.id).where(things.c.id == bindparam("one", 1, literal_execute=True)),
    select(literal("a\\b:c 100%", literal_execute=True).label("x"), literal("d:e").label("y")),
    select(things.c.id, other.c.id).join(other, other.c.id == things.c.id).where(things.c.id == 1),
    select(things.c.id.label("number"), (things.c.id + 1).label("more"))
    .order_by(things.c.id.desc())
    .limit(1),
    select(case((things.c.flag, "yes"), else_="no").label("said")).where(
        and_(things.c.id == 1, exists().where(things.c.id == 1))
    ),
    union_all(select(things.c.when), select(things.c.when).where(things.c.id == 1)),
    select(select(things.c.price).where(things.c.id == 1).scalar_subquery().label("price")),
    select(func.max(things.c.price).label("a"), func.max(things.c.when).label("b"), func.count()),
    select(func.coalesce(things.c.data["c"].as_string(), "nothing").label("c")).order_by(things.c.id),
    select(things.c.data["a"]).where(things.c.id == 1),
    text("SELECT id, 'x:y' AS z FROM things WHERE id = :id AND name IN :names").bindparams(
        bindparam("names", [VALUES["name"][::-1], "other"], expanding=True), id=1
    ),
    text("SELECT day, id FROM things").columns(things.c.id, day=Date),
    text("SELECT id, day FROM things").columns(things.c.id, things.c.day),
    select(text("id"), things.c.day).select_from(things),
    select(Book.id, func.upper(Book.title).label("loud")),
    func.lower("ABC"),
]


async def test_a_statement_says_what_it_says_on_a_connection(each: Case) -> None:
    db = await each.local(metadata)
    await asyncio.to_thread(Model.metadata.create_all, each.engine)
    await db.execute(insert(things), [VALUES, EMPTY])
    await db.execute(insert(Book).values(id=1, title="Emma"))
    empty = []
    for number, statement in enumerate(STATEMENTS):
        expected = each.plain(statement)
        empty += [number] if not expected else []
        assert await db.fetch_all(statement) == expected, number
        assert await db.fetch_all(statement) == expected, f"{number}, from the cache"
    assert empty == [2]


async def test_a_quote_in_a_comment_is_none(each: Case) -> None:
    db = await each.local()
    statement = text("SELECT :a AS one -- it's\n, :b AS two, 'x' AS three")
    assert await db.fetch_one(statement, {"a": 1, "b": 2}) == {"one": 1, "two": 2, "three": "x"}


async def test_changes_are_counted_and_returning_gives_rows(each: Case) -> None:
    db = await each.stub(metadata)

    def handler() -> None:
        # The database makes the key, and nobody asks it back.
        assert db.execute(insert(things).values(name="no key")) == 1
        assert db.execute(insert(things).values(name=func.lower("NO KEY"))) == 1
        assert db.execute(delete(things)) == 2
        assert db.execute(insert(things).values([{"id": n, "name": f"n{n}"} for n in (11, 12, 13)])) == 3
        assert db.execute(update(things).where(things.c.id < 13).values(price=Decimal("1.5"))) == 2
        assert db.execute(update(things).where(things.c.id == 99).values(flag=True)) == 0
        with db.transaction() as tx:
            assert tx.execute(delete(things).where(things.c.id == bindparam("gone")), {"gone": 13}) == 1
            assert tx.fetch_all(select(things.c.id, things.c.name).order_by(things.c.id)) == [
                {"id": 11, "name": "n11"},
                {"id": 12, "name": "n12"},
            ]
        new = insert(things).values(id=17, when=VALUES["when"]).returning(things.c.id, things.c.when)
        assert db.fetch_one(new) == {"id": 17, "when": VALUES["when"]}
        assert db.execute(select(things)) == 0

    await asyncio.to_thread(handler)


async def test_defaults_are_evaluated_where_they_are(each: Case) -> None:
    db = await each.local(made)
    assert await db.execute(insert(defaults).values(id=1)) == 1
    assert await db.execute(insert(defaults), [{"id": 2, "scalar": 1}, {"id": 3, "scalar": 2}]) == 2
    await db.execute(update(defaults).where(defaults.c.id == 1).values(by_server=6))
    first, second, third = await db.fetch_all(select(defaults).order_by(defaults.c.id))
    assert (first["scalar"], first["beside"], first["in_sql"], first["by_server"]) == (8, 70, 3, 6)
    assert (second["beside"], third["beside"], third["in_sql"], third["by_server"]) == (10, 20, 3, 5)
    assert len({first["called"], second["called"], third["called"]}) == 3


async def test_what_needs_a_session_or_is_no_statement_is_refused_in_words(each: Case) -> None:
    db = await each.local(Model.metadata)
    for statement in (
        select(Book),
        select(aliased(Book)),
        select(Book.id, Book),
        select(Book).union(select(Book)),
    ):
        with pytest.raises(DatabaseError, match=r"ctx\.session"):
            await db.fetch_all(statement)
    for nothing in (3, things, Book, None):
        with pytest.raises(DatabaseError, match=r"is refused: ctx\.db takes SQL as str, or a statement"):
            await db.fetch_all(nothing)  # type: ignore[arg-type]
    with pytest.raises(DatabaseError, match="A value is required for bind parameter 'x'"):
        await db.fetch_all(text("SELECT :x"))
    with pytest.raises(DatabaseError, match="LookupError: '3' is not among"):
        await db.execute(insert(things).values(id=1, colour=3))
    with pytest.raises(DatabaseError, match="go by name"):
        await db.execute(insert(Book), [(1, "x")])
    with pytest.raises(DatabaseError, match="go by name"):
        await db.execute(insert(Book), ["x"])
    for rows in ([{"id": 1}, {"id": 2}], [{"id": 1}]):
        with pytest.raises(DatabaseError, match=r"RETURNING|for execute\(\)"):
            await db.fetch_all(insert(Book).returning(Book.id), rows)
    asking = Table(
        "asking",
        MetaData(),
        Column("id", Integer, default=lambda context: context.connection.execute(select(1)).scalar()),
    )
    with pytest.raises(DatabaseError, match=r"runs a statement by itself.*ctx\.connection"):
        await db.execute(insert(asking).values())
    # Nothing of all that has spoilt it.
    assert await db.execute(insert(Book).values(id=1, title="x")) == 1
    with pytest.raises(DatabaseError) as twice:
        await db.execute(insert(Book).values(id=1, title="a secret"))
    assert twice.value.kind in ("IntegrityError", "UniqueViolation")
    assert "a secret" not in str(twice.value)


async def test_a_table_can_be_made_and_a_schema_translated(each: Case) -> None:
    db = await each.local()
    await db.execute(CreateTable(defaults))
    elsewhere = Table("defaults", MetaData(schema="nowhere"), Column("id", Integer))
    found = select(elsewhere).execution_options(schema_translate_map={"nowhere": None})
    assert await db.fetch_all(found) == []


async def test_listeners_of_the_application_set_up_what_leads_nowhere_too(each: Case) -> None:
    heard: list[str] = []

    def set_up(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchall()
        cursor.close()
        heard.append("connect")

    def before(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement.split(maxsplit=1)[0])

    event.listen(Engine, "connect", set_up)
    event.listen(Engine, "before_cursor_execute", before)
    try:
        db = await each.local()
        assert await db.fetch_one(select(literal(1).label("x"))) == {"x": 1}
    finally:
        event.remove(Engine, "connect", set_up)
        event.remove(Engine, "before_cursor_execute", before)
    assert "connect" in heard
    assert heard[-1] == "SELECT"


async def test_statements_are_compiled_once_and_a_bounded_number_is_kept(
    each: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "_CACHED", 10)
    db = await each.local(metadata)
    for number in range(30):
        await db.fetch_all(select(things.c.id).where(things.c.id == number))
    compiler = db._preparer._compiler
    assert compiler is not None
    cache = compiler._connection.engine._compiled_cache
    assert cache is not None
    assert len(cache) == 1
    for number in range(100):
        await db.fetch_all(select(things.c.id.label(f"x{number}")))
    assert len(cache) <= 15


async def test_types_that_only_postgresql_knows_arrive_whole(each: Case) -> None:
    if each.kind != "postgresql":
        pytest.skip("only PostgreSQL has them")
    own = MetaData()
    special = Table(
        "special",
        own,
        Column("id", Integer, primary_key=True),
        Column("moment", DateTime(timezone=True)),
        Column("list", ARRAY(Integer)),
        Column("lists", ARRAY(Numeric(5, 2))),
        Column("data", JSONB),
    )
    values = {
        "id": 1,
        "moment": dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC),
        "list": [1, 2, None],
        "lists": [Decimal("1.50")],
        "data": [1, {"a": "b"}],
    }
    db = await each.local(own)
    await db.execute(insert(special).values(values))
    assert await db.fetch_one(select(special)) == values == each.plain(select(special))[0]
    found = select(special.c.id).where(special.c.data[1]["a"].astext == "b", any_(special.c.list) == 2)
    assert await db.fetch_one(found) == {"id": 1}
    assert await db.fetch_one(select(special.c.id).where(special.c.data.contains([1]))) == {"id": 1}


def test_handlers_of_both_kinds_say_it_in_sqlalchemy(each: Case) -> None:
    app = App()

    @app.handler("plain")
    def plain(price: str, ctx: Context) -> None:
        with ctx.db.transaction() as tx:
            tx.execute(insert(things).values(id=1, price=Decimal(price), colour=Colour.RED))
            tx.execute(insert(things), [{"id": 2, "when": VALUES["when"]}, {"id": 3, "when": None}])
        ctx.state.found = list(ctx.db.stream(select(things.c.price, things.c.colour).where(things.c.id == 1)))

    @app.handler("on.the.loop")
    async def on_the_loop(_: str, ctx: AsyncContext) -> None:
        stream = ctx.db.stream(select(things.c.when).order_by(things.c.id))
        ctx.state.found = [row async for row in stream]

    metadata.create_all(each.engine)
    state = SimpleNamespace()
    with Worker(app, database=each.url, state=state) as worker:
        worker.run("plain", "9.90").raise_for_failure()
        assert state.found == [{"price": Decimal("9.9000"), "colour": Colour.RED}]
        worker.run("on.the.loop", "").raise_for_failure()
        assert state.found == [{"when": None}, {"when": VALUES["when"]}, {"when": None}]
