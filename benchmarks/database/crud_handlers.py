"""The CRUD handler of part (a), three ways to the database; what it does is the same."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, String, Table, bindparam, insert, select

from penstock import App, Context

metadata = MetaData()
rows = Table(
    "bench_rows",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(40)),
)
INSERT: Final = insert(rows)
SELECT: Final = select(rows.c.name).where(rows.c.id == bindparam("id"))

app = App()


def insert_and_select(connection: Connection, payload: dict[str, Any]) -> None:
    """Quick CRUD."""
    connection.execute(INSERT, {"id": payload["id"], "name": payload["name"]})
    connection.execute(SELECT, {"id": payload["id"]}).one()


@app.handler("own")
def own(payload: dict[str, Any], ctx: Context) -> None:
    """On the worker's connection."""
    insert_and_select(ctx.connection, payload)


@app.handler("each")
def each(payload: dict[str, Any], ctx: Context) -> None:
    """On one that is opened for this message, and closed."""
    engine: Engine = ctx.state.engine
    with engine.begin() as connection:
        insert_and_select(connection, payload)


@app.handler("channel", database="channel")
def channel(payload: dict[str, Any], ctx: Context) -> None:
    """Through the loop."""
    insert_and_select(ctx.connection, payload)
