"""Handlers that are cut short in the middle of a stream, for worker processes to import."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from penstock import App, AsyncContext, Context
from tests.channels.db.series import SERIES, marks

app = App()


@app.handler("cut.short", timeout=0.3, retry=None)
def cut_short(job: dict[str, Any], ctx: Context) -> None:
    """Reads until its deadline, in a transaction and outside it."""
    outside = ctx.db.stream(SERIES[job["kind"]].format(10_000_000))
    next(outside)
    with ctx.db.transaction() as tx:
        tx.execute(insert(marks).values(id=1, v="cut short"))
        for _ in tx.stream(SERIES[job["kind"]].format(10_000_000)):
            pass


@app.handler("killed")
def killed(job: dict[str, Any], ctx: Context) -> None:
    """Dies the first time, with two streams open."""
    first = Path(job["first"])
    if first.exists():
        return
    first.touch()
    outside = ctx.db.stream(SERIES[job["kind"]].format(10_000_000))
    next(outside)
    with ctx.db.transaction() as tx:
        tx.execute(insert(marks).values(id=1, v="killed"))
        next(tx.stream(SERIES[job["kind"]].format(10_000_000)))
        os.kill(os.getpid(), signal.SIGKILL)


@app.handler("forgetful")
def forgetful(job: dict[str, Any], ctx: Context) -> None:
    """Leaves one open in the worker's state, so that not even a finalizer closes it."""
    ctx.state.left = ctx.db.stream(SERIES[job["kind"]].format(10_000_000))
    next(ctx.state.left)


@app.handler("cancelled", timeout=0.3, retry=None)
async def cancelled(job: dict[str, Any], ctx: AsyncContext) -> None:
    """An async handler that reads until its deadline."""
    async with ctx.db.transaction() as tx:
        await tx.execute(insert(marks).values(id=1, v="cancelled"))
        async for _ in tx.stream(SERIES[job["kind"]].format(10_000_000)):
            pass


@app.handler("clean", retry=None)
def clean(job: dict[str, Any], ctx: Context) -> None:
    """What the message after it must find: no row, no lock, a channel that answers."""
    assert list(ctx.db.stream(select(marks))) == []
    rows = ctx.db.stream(SERIES[job["kind"]].format(5000))
    assert [row["i"] for row in rows] == list(range(1, 5001))
    with ctx.db.transaction() as tx:
        tx.execute(insert(marks).values(id=1, v="clean"))
        assert [row["v"] for row in tx.stream(select(marks.c.v))] == ["clean"]
        tx.execute(marks.delete())
