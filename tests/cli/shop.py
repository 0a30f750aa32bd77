"""The application of these tests; each test has a copy in its own folder."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text

from penstock import App, AsyncContext, Backoff, Context

app = App()
nothing = "not an application"


class Order(BaseModel):
    """Something to validate."""

    id: int


def note(ctx: Context, what: str) -> None:
    """A row that a test looks for."""
    ctx.connection.execute(
        text("INSERT INTO notes (what, pid) VALUES (:what, :pid)"), {"what": what, "pid": os.getpid()}
    )


@app.handler("orders")
def store(order: Order, ctx: Context) -> None:
    """The plain case."""
    note(ctx, f"order {order.id}")


@app.handler("prints")
def prints(payload: dict[str, Any], ctx: Context) -> None:
    """Writes where nobody may be, before and after what it does."""
    print("before", payload, flush=True)  # noqa: T201 - that is what it is for
    note(ctx, f"printed, attempt {ctx.message.attempt}")
    print("after", file=sys.stderr, flush=True)  # noqa: T201


@app.handler("slow")
def slow(payload: dict[str, float], ctx: Context) -> None:
    """Takes its time."""
    ctx.log.info("slow begins")
    time.sleep(payload["s"])
    note(ctx, "slow")


@app.handler("fails", retry=Backoff(attempts=2, first_s=0))
def fails(payload: dict[str, Any], ctx: Context) -> None:
    """Raises until somebody repairs what it needs."""
    if not Path("repaired").exists():
        raise ValueError(f"no customer {payload['id']}")
    note(ctx, f"repaired {payload['id']} attempt {ctx.message.attempt} headers {sorted(ctx.message.headers)}")


@app.handler("talks")
def talks(payload: dict[str, int], ctx: Context) -> None:
    """Fills a pipe that nobody reads."""
    ctx.log.info("x" * payload["chars"])
    note(ctx, "talked")


@app.handler("modules")
def modules(_: dict[str, Any], ctx: Context) -> None:
    """Says what a worker has loaded."""
    for name in sys.modules:
        note(ctx, f"module {name}")
    note(ctx, "modules done")


@app.handler("async")
async def on_the_loop(payload: dict[str, Any], ctx: AsyncContext) -> None:
    """Needs no worker."""
    await ctx.db.execute(
        "INSERT INTO notes (what, pid) VALUES (:what, :pid)",
        {"what": f"async {payload['id']}", "pid": os.getpid()},
    )
