"""What is told from texts and bytes alone on a database server's channel: names in statements, packets of rows, refusals."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from pymysql.converters import convert_date

from penstock.channels.db.leftovers import left_in_postgresql
from penstock.channels.db.server import packets
from penstock.channels.db.server.named import compiled
from penstock.channels.db.server.refusals import check
from penstock.channels.db.server.texts import Texts
from penstock.errors import DatabaseError

BOTH = ("mysql", "postgresql")


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("SELECT :a, :b_1", "SELECT %(a)s, %(b_1)s"),
        ("SELECT :a + :a", "SELECT %(a)s + %(a)s"),
        ("SELECT ':a', :a", "SELECT ':a', %(a)s"),
        ("SELECT 'it''s :a', :a", "SELECT 'it''s :a', %(a)s"),
        ('SELECT ":a", :a', 'SELECT ":a", %(a)s'),
        ("SELECT /* :b */ :a -- :c\n", "SELECT /* :b */ %(a)s -- :c\n"),
        ("SELECT 1 --\n, :a", "SELECT 1 --\n, %(a)s"),
        ("SELECT :a -- it's\n, :b_1, 'x'", "SELECT %(a)s -- it's\n, %(b_1)s, 'x'"),
        ("SELECT x::int, :a", "SELECT x::int, %(a)s"),
        ("SELECT CAST(:a AS int)", "SELECT CAST(%(a)s AS int)"),
        ("SELECT 5 % 2, '%', :a", "SELECT 5 %% 2, '%%', %(a)s"),
        ("SELECT a[1:2], \\:b, :a", "SELECT a[1:2], :b, %(a)s"),
    ],
)
def test_names_become_the_driver_s(backend: str, written: str, meant: str) -> None:
    assert compiled(written, {"a": 1, "b_1": 2}, backend) == (meant, True)


@pytest.mark.parametrize("backend", BOTH)
def test_without_names_percent_signs_stay(backend: str) -> None:
    assert compiled("SELECT '10 %' LIKE '%:a'", {}, backend) == ("SELECT '10 %' LIKE '%:a'", False)


def test_each_has_quotes_of_its_own() -> None:
    assert compiled(r"SELECT 'a\' :b', :a", {"a"}, "mysql") == (r"SELECT 'a\' :b', %(a)s", True)
    assert compiled("SELECT `:b`, :a # :c", {"a"}, "mysql") == ("SELECT `:b`, %(a)s # :c", True)
    assert compiled(r"SELECT 'a\', :a", {"a"}, "postgresql") == (r"SELECT 'a\', %(a)s", True)
    assert compiled("SELECT $x$ :b $x$, $$:c$$, :a", {"a"}, "postgresql") == (
        "SELECT $x$ :b $x$, $$:c$$, %(a)s",
        True,
    )


def test_postgresql_casts_a_parameter_and_nests_comments() -> None:
    for written, meant in (
        ("SELECT :a::int, x::int", "SELECT %(a)s::int, x::int"),
        ("SELECT /* a /* :x */ :y */ :a", "SELECT /* a /* :x */ :y */ %(a)s"),
        ("SELECT /**/ /***/ /*/ :x */ :a /* * / :y */", "SELECT /**/ /***/ /*/ :x */ %(a)s /* * / :y */"),
        ("SELECT b[1:2], :a:: text", "SELECT b[1:2], %(a)s:: text"),
    ):
        assert compiled(written, {"a"}, "postgresql") == (meant, True)


def test_a_name_without_a_value_is_told() -> None:
    with pytest.raises(DatabaseError, match="no value is given for :b, :c;"):
        compiled("SELECT :a, :c, :b", {"a": 1}, "mysql")


def packet(body: bytes, number: int = 0) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def test_packets_that_have_come_whole_are_split() -> None:
    data = packet(b"one") + packet(b"") + packet(b"three", 2)
    assert packets.split(data) == ([b"one", b"", b"three"], len(data))
    for cut in range(len(data)):
        bodies, taken = packets.split(data[:cut])
        assert packets.split(data[taken:])[0] == [b"one", b"", b"three"][len(bodies) :]


def test_a_body_of_16_mib_goes_on_in_the_next_packet() -> None:
    full = bytes(0xFFFFFF)
    data = packet(full) + packet(b"rest", 1) + packet(b"next")
    bodies, taken = packets.split(data)
    assert [len(body) for body in bodies] == [len(full) + 4, 4]
    assert taken == len(data)
    assert packets.split(packet(full) + packet(b"")) == ([full], len(full) + 8)
    assert packets.split(packet(full) + b"abc") == ([], 0)


def test_a_row_is_read_field_by_field() -> None:
    long, longer = b"x" * 300, b"y" * 70000
    body = (
        b"\x022a"[:1] + b"42" + b"\xfb" + b"\x0a2026-01-31" + b"\xfc" + (300).to_bytes(2, "little") + long
        + b"\xfd" + (70000).to_bytes(3, "little") + longer
        + b"\xfe" + (2).to_bytes(8, "little") + b"zz" + b"\x00"
    )  # fmt: skip
    plain = (None, None)
    converters = [
        ("ascii", int),
        plain,
        ("ascii", convert_date),
        ("utf8", None),
        plain,
        plain,
        ("utf8", None),
    ]
    found = packets.row(body, converters)
    assert found[:2] == (42, None)
    assert str(found[2]) == "2026-01-31"
    assert found[3:] == ("x" * 300, longer, b"zz", "")


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        ("SELECT 1", ""),
        ("SET SESSION sql_mode = ''", "mysql postgresql"),
        ("SET LOCAL lock_timeout = 5", "mysql"),
        ("SELECT GET_LOCK('a', 1)", "mysql postgresql"),
        ("CREATE OR REPLACE TEMPORARY TABLE t (id INT)", "mysql postgresql"),
        ("CREATE TEMP TABLE t (id INT) ON COMMIT DROP", "mysql"),
        ("INSERT INTO t VALUES ('SET')", ""),
        ("SET LOCAL lock_timeout = 5; SELECT 1", "mysql"),
        ("SET LOCAL lock_timeout = 5; SET work_mem = '8MB'", "mysql postgresql"),
        ("SELECT 1; CREATE TEMP TABLE t (id INT)", "mysql postgresql"),
        ("SELECT set_config('app.tenant', %s, true)", "mysql"),
        ("SELECT set_config('app.tenant', %(n)s::VARCHAR, TRUE), 1", "mysql"),
        ("SELECT set_config('app.tenant', 'x, true)', %s)", "mysql postgresql"),
        ("SELECT set_config('a', 'b', true), set_config('a', 'b', false)", "mysql postgresql"),
        ("/* a /* b */ c */ SET work_mem = '8MB'", "mysql postgresql"),
        ("/* a * / b */ SELECT 1 /* c */", ""),
        ("SELECT 1 -- a /* b", ""),
        ("UPDATE pg_settings SET setting = 1", "mysql postgresql"),
        ('UPDATE pg_catalog."pg_settings" SET setting = 1', "mysql postgresql"),
        ("SELECT U&\"set\\005fconfig\"('a', 'b', false)", "mysql postgresql"),
        ('SELECT u&"n" FROM t', "mysql postgresql"),
        ('SELECT menu & "n", menu&"n" FROM t', ""),
    ],
)
def test_what_a_statement_leaves_behind_is_told_by_its_text(statement: str, leaves: str) -> None:
    for backend in ("mysql", "postgresql"):
        assert check(statement, backend, in_transaction=True).leaves is (backend in leaves)
        assert (left_in_postgresql(statement) is not None) is ("postgresql" in leaves)


@pytest.mark.parametrize(
    "statement",
    [
        "BEGIN",
        "USE other",
        "-- why\nSET x = 1",
        "create temp table t (id int)",
        "SELECT ';'; SET x = 1",
        "SELECT 1; PREPARE p AS SELECT 1",
    ],
)
@pytest.mark.parametrize("backend", BOTH)
def test_what_is_for_the_next_statement_is_refused_alone(statement: str, backend: str) -> None:
    with pytest.raises(DatabaseError, match="inside the transaction that needs it"):
        check(statement, backend, in_transaction=False)


@pytest.mark.parametrize(
    "statement",
    [
        "SET GLOBAL max_connections = 5",
        "SETTLE",
        "UPDATE t SET a = 1",
        "SELECT ';SET a = 1';",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW BEGIN SET NEW.a = 1; SET NEW.b = 2; END",
    ],
)
@pytest.mark.parametrize("backend", BOTH)
def test_what_is_for_all_connections_is_not_taken_for_the_next_statement_s(
    statement: str, backend: str
) -> None:
    assert not check(statement, backend, in_transaction=False).is_for_the_next


@pytest.mark.parametrize(
    "statement", ["SELECT 1; LISTEN x", "SELECT 1;/**/DECLARE c CURSOR WITH HOLD FOR SELECT 1"]
)
@pytest.mark.parametrize("backend", BOTH)
def test_what_cannot_cross_is_refused_behind_another_statement(statement: str, backend: str) -> None:
    with pytest.raises(DatabaseError, match="does not cross"):
        check(statement, backend, in_transaction=True)


@pytest.mark.parametrize("backend", BOTH)
@pytest.mark.parametrize(
    "row", ["(1, ':a; #-- @temp')", "(/* a */ 1, 'b'); INSERT INTO u VALUES (2)", "(:a)"]
)
async def test_a_text_of_megabytes_does_not_hold_up_the_loop(backend: str, row: str) -> None:
    text = "INSERT INTO t VALUES " + ", ".join([row] * (2_000_000 // len(row)))
    turns: list[float] = [time.perf_counter()]

    async def turn() -> None:
        while True:
            await asyncio.sleep(0.001)
            turns.append(time.perf_counter())

    turning = asyncio.create_task(turn())
    texts = Texts(backend)
    compiled, _ = await texts.compiled(text, {"a"})
    ruling = await texts.ruling(text, in_transaction=False)
    turning.cancel()
    turns.append(time.perf_counter())
    assert not ruling.leaves
    assert compiled == text.replace(":a)", "%(a)s)")
    assert max(after - before for before, after in itertools.pairwise(turns)) < 0.3
    with pytest.raises(DatabaseError, match="a stream, of this process"):
        await texts.ruling(f"{text}; COPY t FROM STDIN", in_transaction=False)
    assert (await texts.ruling(f"{text}; SET a = 1", in_transaction=True)).leaves
