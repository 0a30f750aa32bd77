"""Plain handlers whose deadline passes while a statement runs on a database server."""

from __future__ import annotations

from sqlalchemy import text

from penstock import App, Backoff, Context

app = App()


@app.handler("sleep.in.block", timeout=0.3, retry=Backoff(attempts=1))
def in_block(statement: str, ctx: Context) -> None:
    with ctx.db.transaction() as tx:
        tx.fetch_one("SELECT 1 AS one")
        tx.fetch_all(statement)


@app.handler("sleep.in.channel", timeout=0.3, retry=Backoff(attempts=1), database="channel")
def in_channel(statement: str, ctx: Context) -> None:
    ctx.connection.execute(text(statement))
