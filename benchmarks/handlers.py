"""The handlers that are measured, the same for every contestant: nothing, and one insert with one select."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    event,
    insert,
    select,
)

from penstock import App, Context

app = App()
metadata = MetaData()
entries = Table(
    "entries", metadata, Column("id", Integer, primary_key=True), Column("note", Text, nullable=False)
)


INSERT = insert(entries)
SELECT = select(entries.c.note).where(entries.c.id == bindparam("id"))


def insert_and_select(connection: Connection, payload: dict[str, Any]) -> None:
    """Quick CRUD as a handler does it: write a row, read it again."""
    connection.execute(INSERT, {"id": payload["id"], "note": payload["note"]})
    connection.execute(SELECT, {"id": payload["id"]}).one()


@app.handler("bench.empty")
def empty(payload: dict[str, Any]) -> None:
    """Does nothing."""


@app.handler("bench.crud")
def crud(payload: dict[str, Any], ctx: Context) -> None:
    """Works with the worker's own connection."""
    insert_and_select(ctx.connection, payload)


# --- the same for the naive consumer: a function for ProcessPoolExecutor, an engine for each process


@cache
def _engine() -> Engine:
    engine = create_engine(os.environ["BENCH_DATABASE"], connect_args={"timeout": 30})

    def set_up(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={os.environ['BENCH_SYNCHRONOUS']}")
        connection.execute("PRAGMA foreign_keys=ON")

    event.listen(engine, "connect", set_up)
    return engine


def naive_empty(body: bytes) -> None:
    """Decodes and does nothing."""
    json.loads(body)


def naive_crud(body: bytes) -> None:
    """Works with the process's engine, whose pool keeps the connection."""
    with _engine().begin() as connection:
        insert_and_select(connection, json.loads(body))
