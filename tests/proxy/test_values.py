"""What goes over the wire comes out as it went in, type and all."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from penstock.proxy import wire
from penstock.proxy.values import packed, packed_parameters

Word = StrEnum("Word", ["ONE"])
Number = IntEnum("Number", ["ONE"])


def carried(value: Any) -> Any:
    answer = wire.decode_answer(wire.encode(wire.Value(packed(value))))
    assert isinstance(answer, wire.Value)
    return answer.value


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**40, -(10**40), 0.0, -0.0, 1e-320, math.inf,
        "", "text", "ünï\x00\U0001f600", b"", b"\x00\xff", Decimal("9.90"), Decimal("-0E+5"), Decimal("1E+400"),
        Decimal("sNaN"), datetime.fromisoformat("2026-01-31T13:05:00.000007"), datetime(2026, 1, 31, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))), datetime.max.replace(tzinfo=UTC), date.min, date(2026, 2, 28),
        time(23, 59, 59, 999999), time(1, 2, tzinfo=UTC), timedelta(days=-1, seconds=1, microseconds=2), timedelta.max,
        UUID(int=7), [], [1, [2, None]], (), (1, (Decimal(1), "x")), {}, {"a": [1, (2,)], 3: UUID(int=1)},
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_arrives_as_it_left(value: Any) -> None:
    arrived = carried(value)
    assert type(arrived) is type(value)
    assert repr(arrived) == repr(value)


def test_nan_arrives() -> None:
    assert math.isnan(carried(math.nan))


def test_what_is_more_than_a_plain_value_arrives_as_one() -> None:
    assert (carried(Word.ONE), carried(Number.ONE)) == ("one", 1)
    assert carried(bytearray(b"x")) == carried(memoryview(b"x")) == b"x"


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, [object()], {"x": object()}])
def test_what_cannot_cross_is_refused_by_name(value: Any) -> None:
    with pytest.raises(TypeError, match=r"a builtins\.\w+ cannot cross between processes: numbers, text"):
        packed(value)


@pytest.mark.parametrize("key", [(1, 2), Decimal("1.5"), 2**64])
def test_a_key_that_cannot_cross_is_refused_by_name(key: Any) -> None:
    with pytest.raises(
        TypeError, match=r"a dict with the key .* cannot cross between processes: its keys may be text"
    ):
        packed({"x": [{key: 1}]})
    assert carried({"a": 1, b"b": 2, None: 3, 4: 5, 0.5: 6}) == {"a": 1, b"b": 2, None: 3, 4: 5, 0.5: 6}


def test_parameters_are_by_name_or_by_position() -> None:
    assert packed_parameters({"a": 1}) == {"a": 1}
    assert packed_parameters((1, "b")) == [1, "b"]
    assert packed_parameters(iter([1])) == [1]
