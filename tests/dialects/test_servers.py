"""SQLAlchemy's dialect compliance suite over the channel to MariaDB and PostgreSQL: what passes with the plain drivers passes.

Every day what a channel could do wrong, on the channel alone; `scripts/compliance` runs all of it on both and compares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest
from sqlalchemy import make_url

from tests.dialects.features import mariadb, postgresql
from tests.dialects.running import Ran, Suite
from tests.servers import MariaDBServer, PostgreSQLServer, Server, Template

ALL: Final = os.environ.get("PENSTOCK_TEST_DIALECTS") == "all"
#: Values of every type, what statements count and return, errors, isolation, streamed results, a little reflection.
_EVERY_DAY: Final = (
    "NumericTest", "DateTimeTest", "DateTimeTZTest", "TimeTest", "DateTest", "IntervalTest", "UuidTest", "NativeUUID",
    "UnicodeTextTest", "BinaryTest", "BooleanTest", "ArrayTest", "EnumTest", "(JSONTest and round_trip)",
    "InsertBehavior", "SimpleUpdateDelete", "RowCountTest", "Lastrowid", "RowFetch", "CTETest", "EscapingTest",
    "PostCompileParams", "ExpandingBoundIn", "ExceptionTest", "PingTest", "ServerSideCursors", "IsolationLevelTest",
    "AutocommitIsolation", "HasTableTest", "CompositeKeyReflection",
)  # fmt: skip
EVERY_DAY: Final = " or ".join(_EVERY_DAY)


@contextmanager
def _empty(server: Server) -> Iterator[str]:
    """A database and what the suite wants to find beside it."""
    if isinstance(server, MariaDBServer):
        for name in ("suite", "test_schema", "test_schema_2"):
            server.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    else:
        server.execute("CREATE DATABASE suite")
        for name in ("test_schema", "test_schema_2"):
            server.execute(f"CREATE SCHEMA {name}", url=server.url_for("suite"))
    yield server.url_for("suite")


def _run(
    kind: type[Server], template: Template, tmp_path: Path, ways: list[str], only: str = ""
) -> dict[str, Ran]:
    with ExitStack() as stack:
        runs = {}
        for way in ways:
            # A server each: the suite's schemas have the same names on both.
            url = stack.enter_context(_empty(stack.enter_context(kind(template))))
            folder = tmp_path / way
            folder.mkdir()
            over_channel = f"{make_url(url).get_backend_name()}+penstock://"
            suite = (
                Suite(url, folder, only=only)
                if way == "plain"
                else Suite(over_channel, folder, served=url, only=only)
            )
            runs[way] = stack.enter_context(closing(suite))
        return {way: run.result() for way, run in runs.items()}


def _check_all(
    kind: type[Server], template: Template, tmp_path: Path, features: ModuleType, least: int
) -> None:
    found = _run(kind, template, tmp_path, ["plain", "channel"])
    plain, channel = found["plain"], found["channel"]
    assert channel.failed == {}
    assert plain.failed == {}
    assert len(channel.passed) > least
    reasons = {*features.NOT_OVER_CHANNEL.values(), *features.LEFT_OUT.values()}
    assert channel.unexplained(plain, reasons, features.UNCOLLECTED) == {}


@pytest.mark.skipif(ALL, reason="all of it runs")
def test_the_everyday_part_passes_on_mariadb(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = _run(
        MariaDBServer, request.getfixturevalue("_mariadb_template"), tmp_path, ["channel"], EVERY_DAY
    )["channel"]
    assert found.failed == {}
    assert len(found.passed) > 150


@pytest.mark.skipif(ALL, reason="all of it runs")
def test_the_everyday_part_passes_on_postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = _run(
        PostgreSQLServer, request.getfixturevalue("_postgresql_template"), tmp_path, ["channel"], EVERY_DAY
    )["channel"]
    assert found.failed == {}
    assert len(found.passed) > 150


@pytest.mark.skipif(not ALL, reason="takes minutes: scripts/compliance runs it")
@pytest.mark.timeout(1200)
def test_what_passes_with_pymysql_passes_over_the_channel(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    _check_all(MariaDBServer, request.getfixturevalue("_mariadb_template"), tmp_path, mariadb, 1500)


@pytest.mark.skipif(not ALL, reason="takes minutes: scripts/compliance runs it")
@pytest.mark.timeout(1200)
def test_what_passes_with_psycopg_passes_over_the_channel(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    _check_all(PostgreSQLServer, request.getfixturevalue("_postgresql_template"), tmp_path, postgresql, 1700)
