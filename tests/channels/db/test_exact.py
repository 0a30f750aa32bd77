"""Values of a database server on the wire: they arrive as what they were."""

from __future__ import annotations

import datetime as dt
import enum
import importlib.resources
import ipaddress
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.numeric import Float8, Int4
from psycopg.types.range import Range

from penstock.channels.db.exact import arrived, crossing, exact_parameters
from penstock.errors import DatabaseError


def carried(value: Any) -> Any:
    wire = msgspec.msgpack.encode(crossing(value, "it"))
    return msgspec.msgpack.Decoder(ext_hook=arrived).decode(wire)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**63),
        2**70,
        1.5,
        "ä",
        b"\0\xff",
        Decimal("1.20"),
        dt.datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.datetime(2026, 7, 1, 12, tzinfo=dt.UTC),
        dt.datetime(1, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        dt.datetime(9999, 12, 31, 23, tzinfo=ZoneInfo("America/New_York")),
        dt.date(2026, 7, 1),
        dt.time(1, 2, 3, 4),
        dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.time(1, 2, tzinfo=ZoneInfo("Etc/GMT-2")),
        dt.timedelta(days=-1, microseconds=3),
        UUID(int=5),
        [1, [Decimal(2), None]],
        (1, (Decimal(2), "a")),
        {1, 2},
        {"a": [Decimal(1)]},
        ipaddress.ip_address("::1"),
        ipaddress.ip_interface("10.0.0.1/8"),
        ipaddress.ip_network("10.0.0.0/8"),
        Range(1, 5, "[]"),
        Range(None, dt.date(2026, 1, 1)),
        Range(empty=True),
        Multirange([Range(1, 2), Range(5, None)]),
        Int4(5),
        Float8(1.5),
    ],
    ids=repr,
)
def test_a_value_arrives_as_it_was(value: Any) -> None:
    found = carried(value)
    assert found == value
    assert type(found) is type(value)


def test_an_hour_that_comes_twice_arrives_as_the_one_it_was() -> None:
    for fold in (0, 1):
        moment = dt.datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
        found = carried(moment)
        assert (found.utcoffset(), found.tzinfo, found.fold) == (moment.utcoffset(), moment.tzinfo, fold)


@pytest.mark.parametrize("key", [None, "Our/Office", "America/New_York"])
def test_a_zone_from_a_file_arrives_as_its_offset(key: str | None) -> None:
    source = importlib.resources.files("tzdata") / "zoneinfo/Europe/Berlin"
    with source.open("rb") as file:
        moment = dt.datetime(2026, 7, 1, 12, tzinfo=ZoneInfo.from_file(file, key=key))
    found = carried(moment)
    assert (found, found.utcoffset()) == (moment, moment.utcoffset())


def test_a_time_of_day_whose_offset_depends_on_the_day_is_refused() -> None:
    with pytest.raises(DatabaseError, match="it is a time of day in Europe/Berlin") as raised:
        crossing(dt.time(1, 2, tzinfo=ZoneInfo("Europe/Berlin")), "it")
    assert raised.value.kind == "DataError"


def test_wrappers_arrive_with_their_text() -> None:
    for wrapper in (Json, Jsonb):
        found = carried(wrapper({"a": 1}))
        assert type(found) is wrapper
        assert found.dumps is not None
        assert found.dumps(found.obj) == '{"a": 1}'


def test_what_is_derived_arrives_as_what_it_is_derived_from() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    class Price(Decimal): ...

    assert type(carried(Colour.RED)) is str
    assert carried(Price("1.5")) == Decimal("1.5")
    assert carried(bytearray(b"a")) == carried(memoryview(b"a")) == b"a"


def test_named_parameters_that_are_tuples_are_lists() -> None:
    assert exact_parameters({"ids": (1, 2)}) == {"ids": [1, 2]}


def test_what_does_not_cross_is_refused_by_name() -> None:
    with pytest.raises(DatabaseError, match="it is of type object"):
        crossing(object(), "it")
