"""From a body to a payload: what is read, and for everything else a reason that a person can act on."""

import gzip
import json
import time
import tracemalloc
import zlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from penstock.app.decode import Decoder
from penstock.errors import HandlerError, PayloadError
from tests.app.handlers import taking

LIMIT_BYTES = 1024 * 1024


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: int
    total: Decimal = Decimal(0)
    key: UUID | None = None
    day: date | None = None
    at: datetime | None = None
    lasts: timedelta | None = None
    colour: Colour | None = None
    level: Level | None = None
    pair: tuple[int, str] | None = None
    numbers: set[int] | None = None
    share: float = 0.0

    @field_validator("share")
    @classmethod
    def _less_than_one(cls, share: float) -> float:
        if share >= 1:
            raise ValueError("a share is less than 1")
        return share


def decode(
    annotation: Any, body: bytes, content_type: str | None = None, encoding: str | None = None, **options: Any
) -> Any:
    return Decoder(taking(annotation, **options), body_bytes=LIMIT_BYTES).decode(body, content_type, encoding)


def reason_of(
    annotation: Any, body: bytes, content_type: str | None = None, encoding: str | None = None
) -> str:
    with pytest.raises(PayloadError) as refused:
        decode(annotation, body, content_type, encoding)
    return refused.value.reason


def test_a_model_is_strict_and_yet_reads_what_json_has_no_words_for() -> None:
    body = json.dumps(
        {
            "id": 1,
            "total": "9.99",
            "key": "12345678-1234-5678-1234-567812345678",
            "day": "2024-02-29",
            "at": "2024-02-29T12:00:00Z",
            "lasts": "PT5M",
            "colour": "red",
            "level": 3,
            "pair": [1, "x"],
            "numbers": [1, 2, 2],
            "share": 0.5,
        }
    ).encode()

    assert decode(Order, body) == Order(
        id=1,
        total=Decimal("9.99"),
        key=UUID("12345678-1234-5678-1234-567812345678"),
        day=date(2024, 2, 29),
        at=datetime(2024, 2, 29, 12, tzinfo=UTC),
        lasts=timedelta(minutes=5),
        colour=Colour.RED,
        level=Level.HIGH,
        pair=(1, "x"),
        numbers={1, 2},
        share=0.5,
    )


def test_a_decimal_in_a_string_keeps_every_digit() -> None:
    assert decode(Decimal, b'"0.1234567890123456789"') == Decimal("0.1234567890123456789")


@pytest.mark.parametrize(
    ("annotation", "body", "payload"),
    [
        (dict, b'{"a": [1, null, true]}', {"a": [1, None, True]}),
        (Any, b"[1.5]", [1.5]),
        (dict[str, int], b'{"a": 1}', {"a": 1}),
        (list[Decimal], b'["1.10"]', [Decimal("1.10")]),
        (int | None, b"null", None),
        (Annotated[int, Field(gt=0)], b"1", 1),
        (str | None, b'"text"', "text"),
        (Any, b'"\\ud83d\\ude00"', "\U0001f600"),
        (Any, b" {} ", {}),
        (Any, b"[" * 150 + b"]" * 150, None),
    ],
)
def test_json_becomes_what_the_annotation_says(annotation: Any, body: bytes, payload: Any) -> None:
    decoded = decode(annotation, body)
    assert decoded == payload or payload is None


MALFORMED = {
    "nothing": (b"", "Expecting value"),
    "half an object": (b'{"id": 1', "Expecting ',' delimiter"),
    "single quotes": (b"{'id': 1}", "double quotes"),
    "something behind it": (b"{} {}", "Extra data"),
    "a leading zero": (b"01", "Extra data"),
    "a control character": (b'"a\nb"', "control character"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
    "Latin-1": (b'"gr\xfcn"', "not UTF-8"),
    "UTF-16": ('{"id": 1}'.encode("utf-16"), "not UTF-8"),
    "NaN": (b'{"id": NaN}', "NaN is not JSON"),
    "Infinity": (b"[Infinity]", "Infinity is not JSON"),
    "minus Infinity": (b"-Infinity", "-Infinity is not JSON"),
    "a number beyond a float": (b"[1e999]", "too large"),
    "a number beyond a float, negative": (b"-1e999", "too large"),
    "5,000 digits": (b"1" * 5000, "4300 digits"),
    "5,000 digits inside": (b'{"id": ' + b"1" * 5000 + b"}", "4300 digits"),
    "twin keys": (b'{"id": 1, "id": 2}', "key 'id' stands twice"),
    "twin keys deep inside": (b'[{"a": {"b": 1, "b": 1}}]', "key 'b' stands twice"),
    "twin keys of which one is escaped": (b'{"id": 1, "\\u0069d": 2}', "key 'id' stands twice"),
    "a lone surrogate": (b'"\\ud800"', "Invalid JSON"),
    "a lone surrogate as a key": (b'{"\\udfff": 1}', "Invalid JSON"),
    "200,000 brackets": (b"[" * 200_000, "nested too deeply"),
    "200,000 braces": (b'{"a":' * 200_000, "nested too deeply"),
    "300 brackets, closed": (b"[" * 300 + b"]" * 300, "recursion limit"),
    "pickle": (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94.", "not UTF-8"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_json_says_why(name: str) -> None:
    body, words = MALFORMED[name]
    for annotation in (Any, dict, Order):
        assert words in reason_of(annotation, body)


INVALID = {
    "another type": (b'{"id": "1"}', "id: Input should be a valid integer"),
    "a float for an integer": (b'{"id": 1.0}', "id: Input should be a valid integer"),
    "a missing field": (b"{}", "id: Field required"),
    "an unknown field": (b'{"id": 1, "di": 2}', "di: Extra inputs are not permitted"),
    "a list": (b"[]", "body: Input should be an object"),
    "no such day": (b'{"id": 1, "day": "2023-02-29"}', "day: Input should be a valid date"),
    "a day as a number": (b'{"id": 1, "day": 20000}', "day: Input should be a valid date"),
    "no such colour": (b'{"id": 1, "colour": "blue"}', "colour: Input should be 'red'"),
    "a decimal that is none": (b'{"id": 1, "total": "NaN"}', "total: Input should be a finite number"),
    "the author's own rule": (b'{"id": 1, "share": 2.0}', "share: Value error, a share is less than 1"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_not_the_annotation_names_the_field(name: str) -> None:
    body, words = INVALID[name]
    reason = reason_of(Order, body)
    assert words in reason
    assert "tests.app.handlers.taking.<locals>.handler" in reason


def test_a_reason_shows_five_faults_and_counts_the_rest() -> None:
    reason = reason_of(dict[str, int], json.dumps(dict.fromkeys("abcdefgh", "x")).encode())

    assert "e: Input should be a valid integer; and 3 more" in reason
    assert "f: " not in reason


@pytest.mark.parametrize("body", [b'{"%s": "x"}', b'{"%s": 1, "%s": 2}'])
def test_a_reason_is_short_whatever_the_body_holds(body: bytes) -> None:
    assert len(reason_of(dict[str, int], body.replace(b"%s", b"k" * 100_000))) < 500


def test_a_reason_never_shows_the_value_met() -> None:
    assert "S3CR3T" not in reason_of(Order, b'{"id": "S3CR3T"}')


def test_the_twin_among_many_keys_is_found_in_no_time() -> None:
    keys = [*range(50_000), 49_999]
    body = ("{" + ",".join(f'"{key}":1' for key in keys) + "}").encode()
    began_s = time.process_time()

    assert "'49999'" in reason_of(Any, body)

    # A look through all keys for each of them would take half a minute.
    assert time.process_time() - began_s < 5


def test_a_body_beyond_the_limit_is_not_read() -> None:
    assert decode(bytes, bytes(LIMIT_BYTES)) == bytes(LIMIT_BYTES)
    assert reason_of(bytes, bytes(LIMIT_BYTES + 1)) == (
        "the body has 1048577 bytes, limits.body_bytes is 1048576; it was not read"
    )


# --- raw


def test_bytes_take_any_body_as_it_is() -> None:
    assert decode(bytes, b"\xff\x00", "image/png") == b"\xff\x00"
    assert decode(bytes, b'{"a": NaN}', "application/json; charset=latin-1") == b'{"a": NaN}'


def test_str_takes_utf_8_text_of_any_kind() -> None:
    assert decode(str, "grün".encode(), "text/csv; charset=UTF-8") == "grün"
    assert "not UTF-8" in reason_of(str, b"gr\xfcn")
    assert "charset" in reason_of(str, b"x", "text/plain; charset=latin-1")


def test_the_declaration_overrules_the_annotation() -> None:
    assert decode(str, b'"text"', content_type=None, encoding=None) == '"text"'
    handler = taking(str, content_type="json")
    assert Decoder(handler, body_bytes=10).decode(b'"text"', None, None) == "text"
    handler = taking(dict, content_type="raw")
    assert Decoder(handler, body_bytes=10).decode(b"{", None, None) == b"{"


def test_an_annotation_that_nobody_can_validate_is_refused_before_any_message() -> None:
    class Opaque: ...

    with pytest.raises(HandlerError, match="Opaque"):
        Decoder(taking(Opaque), body_bytes=10)


# --- content type


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/json",
        "application/json; charset=utf-8",
        'APPLICATION/JSON;charset="UTF-8"',
        "application/json;",
        " application/json ",
        "application/vnd.shop+json",
        "application/vnd.shop+json; version=2",
        "text/json",
        "application/octet-stream",
        "application/octet-stream; charset=us-ascii",
        ";",
    ],
)
def test_a_content_type_that_may_be_json_is_read(content_type: str | None) -> None:
    assert decode(dict, b"{}", content_type) == {}


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-python-serialize",
        "application/x-yaml",
        "application/msgpack",
        "json",
        "text/html",
    ],
)
def test_another_content_type_is_refused_by_name(content_type: str) -> None:
    reason = reason_of(dict, b"{}", content_type)

    assert repr(content_type) in reason
    assert "annotate its payload bytes" in reason


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "", "cp1252"])
def test_another_charset_is_refused(charset: str) -> None:
    assert "UTF-8" in reason_of(dict, b"{}", f"application/json; charset={charset}")


# --- content encoding


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP", "deflate"])
def test_a_packed_body_is_unpacked(encoding: str) -> None:
    packed = zlib.compress(b'{"a": 1}') if encoding == "deflate" else gzip.compress(b'{"a": 1}', mtime=0)

    assert decode(dict, packed, "application/json", encoding) == {"a": 1}
    assert decode(bytes, packed, None, encoding) == b'{"a": 1}'


@pytest.mark.parametrize("encoding", ["", "identity", "utf-8", "UTF-8"])
def test_an_encoding_that_is_none_changes_nothing(encoding: str) -> None:
    assert decode(dict, b"{}", None, encoding) == {}


PACKED = gzip.compress(b"[1]", mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"{}", "br", "content encoding 'br' is not read"),
        (b"{}", "gzip, gzip", "content encoding 'gzip, gzip' is not read"),
        (b"{}", "gzip", "the body is not gzip"),
        (PACKED[:-1], "gzip", "cut off"),
        (b"", "gzip", "cut off"),
        (PACKED[:-8] + bytes(8), "gzip", "incorrect data check"),
        (PACKED + b"x", "gzip", "1 more bytes"),
        (PACKED + PACKED, "gzip", "more bytes"),
    ],
)
def test_a_body_that_does_not_unpack_says_why(body: bytes, encoding: str, words: str) -> None:
    assert words in reason_of(Any, body, None, encoding)


def test_a_packed_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    assert len(decode(bytes, gzip.compress(bytes(LIMIT_BYTES)), None, "gzip")) == LIMIT_BYTES
    assert "more than limits.body_bytes" in reason_of(
        bytes, gzip.compress(bytes(LIMIT_BYTES + 1)), None, "gzip"
    )


def test_a_gzip_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(64 * LIMIT_BYTES), compresslevel=9)
    tracemalloc.start()
    try:
        reason = reason_of(Any, bomb, None, "gzip")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert "it was not read" in reason
    assert peak_bytes < 4 * LIMIT_BYTES
