"""The handlers of the database pages do in a worker what their page says, on each database that they are for."""

from __future__ import annotations

import operator
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text

from penstock.testing import embedded_service
from tests.docs.pages import ROOT, blocks

SERVERS: Final = ("mariadb", "postgresql")
EVERYWHERE: Final = ("sqlite", *SERVERS)
PRICES: Final = [{"article": article, "price": "1.50", "since": "2026-01-31T00:00:00"} for article in (1, 2)]


@dataclass(frozen=True)
class Told:
    """What a page's handler is sent, and what is in the database when it has handled that."""

    page: str
    program: str
    queue: str
    messages: list[Any]
    """Handled one after the other."""
    question: str
    rows: list[tuple[Any, ...]]
    tables: list[str] = field(default_factory=list)
    """What was there before; without it the tables of `metadata` are made."""
    metadata: str = "metadata"
    databases: tuple[str, ...] = EVERYWHERE


TOLD: Final = (
    Told(
        "database", "savepoint", "visits", [{"name": "Ada"}, {"name": "Ada"}],
        "SELECT name, (SELECT count(*) FROM visitors) FROM visits", [("Ada", 1), ("Ada", 1)],
        ["CREATE TABLE visitors (name VARCHAR(9) PRIMARY KEY)", "CREATE TABLE visits (name VARCHAR(9))"],
    ),
    Told(
        "database", "customers", "customers", [{"name": "Ada"}], "SELECT name FROM customers", [("Ada",)],
        ["CREATE TABLE customers (name VARCHAR(9))"],
    ),
    Told(
        "database", "large", "prices.raise", [{"kind": "a"}],
        "SELECT id, price FROM items ORDER BY id", [(1, 4), (2, 6), (3, 5)],
        ["CREATE TABLE items (id INT PRIMARY KEY, kind VARCHAR(9), price INT)",
         "INSERT INTO items VALUES (1, 'a', 2), (2, 'a', 3), (3, 'b', 5)"],
    ),
    Told(
        "database", "isolation", "accounts.close", [{"id": 1}],
        "SELECT id FROM accounts WHERE open", [(2,)],
        ["CREATE TABLE accounts (id INT PRIMARY KEY, open BOOLEAN)",
         "INSERT INTO accounts VALUES (1, true), (2, true)"],
    ),
    Told(
        "database-channel", "channel", "prices.set", [{**PRICES[0], "price": "0.10"}, *PRICES],
        "SELECT article FROM prices WHERE price = 1.5 ORDER BY article", [(1,), (2,)],
    ),
    Told(
        "database-channel", "channel", "prices.imported", [PRICES], "SELECT count(*) FROM prices", [(2,)],
    ),
    Told("database-channel", "channel", "prices.summed", [{}], "SELECT count(*) FROM prices", [(0,)]),
    Told(
        "database-channel", "library", "books.bought",
        [{"title": "Dune", "copies": 1}, {"title": "Dune", "copies": 2}],
        "SELECT title, copies FROM books", [("Dune", 3)], metadata="Model.metadata",
    ),
    Told(
        "database-channel", "reporting", "reports.wanted", ["2026-01-31"], "SELECT count(*) FROM books", [(0,)],
        ["CREATE TABLE books (id INT)"], databases=("sqlite",),
    ),
    Told(
        "database-channel", "counting", "visits.seen", ["/", "/"],
        "SELECT page, times FROM visits", [("/", 2)],
        ["CREATE TABLE visits (page VARCHAR(9) PRIMARY KEY, times INT)"], databases=("sqlite",),
    ),
    Told(
        "database-channel", "stock", "stock.taken", ["nail", "nail"],
        "SELECT article, taken FROM stock", [("nail", 2)],
        ["CREATE TABLE stock (article VARCHAR(9) PRIMARY KEY, taken INT)"], databases=("postgresql",),
    ),
    Told(
        "the-reactor-question", "with_penstock", "bodies", [{"body": "one"}], "SELECT body FROM bodies", [("one",)],
        ["CREATE TABLE bodies (body VARCHAR(9))"],
    ),
    Told(
        "the-reactor-question", "over_the_loop", "bodies.moved", [{"row": 1}],
        "SELECT body, (SELECT count(*) FROM bodies) FROM moved", [("one", 0)],
        ["CREATE TABLE bodies (body VARCHAR(9))", "CREATE TABLE moved (body VARCHAR(9))",
         "INSERT INTO bodies VALUES ('one')"],
        databases=("sqlite",),
    ),
    Told(
        "guarantees", "once", "payments.received", [{"account": 1, "amount": 5}],
        "SELECT count(*) FROM handled", [(1,)], databases=("sqlite",),
    ),
)  # fmt: skip
CASES: Final = [
    pytest.param(told, database, id=f"{told.program}-{told.queue}-{database}")
    for told in TOLD
    for database in told.databases
]


@pytest.mark.parametrize(("told", "database"), CASES)
async def test_a_handler_does_what_its_page_says(
    told: Told, database: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the page's program, and the tables that it speaks of
    page = ROOT / "docs" / f"{told.page}.md"
    (program,) = [
        block for block in blocks("python") if (block.page, block.file_name) == (page, f"{told.program}.py")
    ]
    (tmp_path / f"{told.program}.py").write_text(program.text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    url = (
        f"sqlite:///{tmp_path / 'app.db'}"
        if database == "sqlite"
        else request.getfixturevalue(f"{database}_url")
    )
    engine = create_engine(url)
    try:
        # When a worker handles what it is sent
        async with embedded_service(f"{told.program}:app", database=url, processes=1) as service:
            module = sys.modules[told.program]
            monkeypatch.delitem(sys.modules, told.program)
            if not told.tables:
                operator.attrgetter(told.metadata)(module).create_all(engine)
            with engine.begin() as connection:
                for statement in told.tables:
                    connection.execute(text(statement))
            for number, message in enumerate(told.messages, 1):
                await service.client.publish(told.queue, message)
                await service.wait_for(acked=number)

        # Then that is in the database
        with engine.connect() as connection:
            assert [tuple(row) for row in connection.execute(text(told.question))] == told.rows
    finally:
        engine.dispose()
