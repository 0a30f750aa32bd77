"""How a statement is made ready to cross: what is loaded, what is asked of the database, and what may happen meanwhile."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, literal, select

from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.preparing import Preparer
from penstock.channels.service import Caller
from penstock.errors import DeadlineExceeded
from tests.channels.db.databases import Case


def test_a_deadline_while_it_is_compiled_is_a_deadline() -> None:
    def too_late() -> int:
        raise DeadlineExceeded

    late = Table("late", MetaData(), Column("id", Integer, default=too_late))
    preparer = Preparer(is_server=False)
    preparer.question(insert(late))
    with pytest.raises(DeadlineExceeded):
        preparer.prepare(insert(late), None)


def test_a_default_may_compile_a_statement() -> None:
    preparer = Preparer(is_server=False)

    def another() -> str:
        return preparer.prepare(select(literal(2)), None).sql

    nested = Table("nested", MetaData(), Column("id", Integer), Column("sql", String, default=another))
    preparer.question(insert(nested))
    prepared = preparer.prepare(insert(nested).values(id=1), None)
    assert prepared.sql == "INSERT INTO nested (id, sql) VALUES (?, ?)"
    assert prepared.parameters == [1, "SELECT ? AS anon_1"]


async def test_a_server_is_asked_once_which_it_is(each: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await each.service()
    # As a service hands them to its async handlers: what is known of the server is known to all.
    preparer = Preparer(is_server=service.is_server)

    def of(handler: str) -> LocalDatabase:
        return LocalDatabase(service, Caller(handler), preparer)

    asked: list[str] = []
    call = service.call

    async def noting(method: str, arguments: Any, caller: Any) -> Any:
        asked.append(bytes(arguments).decode(errors="replace"))
        return await call(method, arguments, caller)

    monkeypatch.setattr(service, "call", noting)
    await asyncio.gather(*(of(str(n)).fetch_all(select(literal(n))) for n in range(4)))
    assert await of("another").fetch_one(select(literal(1).label("x"))) == {"x": 1}
    questions = [words for words in asked if " AS answer" in words]
    assert len(questions) <= (0 if each.kind == "sqlite" else 8)
    asked.clear()
    await of("another").fetch_one(select(literal(1)))
    assert len(asked) == 1


def test_text_alone_does_not_load_sqlalchemy() -> None:
    program = """
import sys
from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.preparing import Preparer
from penstock.channels.service import Caller
from penstock.channels.db import stub, local
for is_server in (False, True):
    preparer = Preparer(is_server=is_server)
    assert preparer.question("SELECT :a") is None
    assert preparer.prepare("SELECT :a", {"a": 1}).sql == "SELECT :a"
print([name for name in sys.modules if name.startswith("sqlalchemy")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
