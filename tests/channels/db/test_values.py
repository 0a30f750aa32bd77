from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Column,
    Date,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Time,
    Uuid,
    create_engine,
    text,
)
from sqlalchemy.types import Boolean, Float, Integer, TypeEngine

from penstock.channels.db.values import stored, stored_parameters
from penstock.errors import DatabaseError


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Plain(Enum):
    ONE = 1


AWARE = dt.datetime(2026, 1, 31, 13, 5, tzinfo=dt.timezone(dt.timedelta(hours=2)))


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (None, Text()),
        (2**63 - 1, Integer()),
        (-(2**63), Integer()),
        (True, Boolean()),
        (False, Boolean()),
        (1.5, Float()),
        ("ä\0b", Text()),
        (b"\x00\xff", LargeBinary()),
        (dt.datetime(2026, 1, 31, 13, 5), DateTime()),  # noqa: DTZ001
        (dt.datetime(987, 1, 2, 3, 4, 5, 6), DateTime()),  # noqa: DTZ001
        (dt.date(987, 1, 2), Date()),
        (dt.time(3, 4), Time()),
        (dt.time(3, 4, 5, 60), Time()),
        (UUID("12345678-1234-5678-1234-567812345678"), Uuid()),
    ],
)
def test_a_value_is_stored_as_sqlalchemy_stores_it(value: Any, column: TypeEngine[Any]) -> None:
    engine = create_engine("sqlite://")
    table = Table("t", MetaData(), Column("v", column))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert().values(v=value))
        connection.execute(text("CREATE TABLE ours (v)"))
        connection.exec_driver_sql("INSERT INTO ours VALUES (?)", (stored(value, ":v"),))
        found = connection.exec_driver_sql(
            "SELECT v, typeof(v) FROM t UNION ALL SELECT v, typeof(v) FROM ours"
        )
        theirs, ours = found.all()
    engine.dispose()
    assert ours == theirs


@pytest.mark.filterwarnings("ignore:The default datetime adapter:DeprecationWarning")
@pytest.mark.parametrize("moment", [AWARE, AWARE.replace(microsecond=60), AWARE.astimezone(dt.UTC)])
def test_a_moment_with_an_offset_is_stored_as_the_driver_stores_it(moment: dt.datetime) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        (theirs,) = connection.execute("SELECT ?", (moment,)).fetchone()
    assert stored(moment, ":v") == theirs
    assert dt.datetime.fromisoformat(theirs) == moment


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("9.990"), "9.990"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        (Colour.RED, "red"),
        (Size.LARGE, 3),
        (dt.time(3, 4, tzinfo=dt.UTC), "03:04:00.000000+00:00"),
    ],
)
def test_kin_of_plain_values_become_exactly_plain(value: Any, expected: Any) -> None:
    found = stored(value, ":v")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            {"total": 2**63},
            r"parameter :total is an integer of 64 bits, SQLite stores those from -2\*\*63 to 2\*\*63-1",
        ),
        ((1, -(2**63) - 1), "parameter number 2 is an integer of 64 bits"),
        ({"who": object()}, "parameter :who is an object"),
        ({"who": Plain.ONE}, "parameter :who is a Plain"),
        ([(1, 2)], "parameter number 1 is a tuple.*one value a parameter"),
        ({"name": "\ud800"}, "parameter :name holds a lone surrogate at character 0"),
        ({"n\ud800": 1}, "lone surrogate at character 1"),
        ({1: 1}, "named by str, not by an int"),
        ("abc", r"not a str; a single one is written \(value,\)"),
        (b"abc", "not a bytes"),
        (7, "not an int"),
        ({1, 2}, "not a set"),
    ],
)
def test_what_sqlite_cannot_store_is_refused_by_name(parameters: object, words: str) -> None:
    with pytest.raises(DatabaseError, match=words) as caught:
        stored_parameters(parameters)
    assert "nothing was run" in str(caught.value)


def test_parameters_keep_their_names_and_their_order() -> None:
    assert stored_parameters(None) is None
    assert stored_parameters({"b": True, "a": None}) == {"b": 1, "a": None}
    assert stored_parameters((Decimal(1), "x")) == ["1", "x"]
