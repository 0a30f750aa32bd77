"""The application that the service tests run; workers import it by this name."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog
from pydantic import BaseModel
from sqlalchemy import Column, Connection, Float, Integer, MetaData, String, Table, event, insert, select

from penstock.app.application import App
from penstock.app.backoff import Backoff
from penstock.app.context import AsyncContext, Context
from penstock.app.messages import Outgoing
from penstock.app.outcomes import Reject, Retry
from penstock.errors import DatabaseUnavailable

app = App()
metadata = MetaData()
#: What handlers did, inside their own transactions; no unique key, so that duplicates show.
effects = Table(
    "effects",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("message_id", String(100), index=True),
    Column("handler", String(100)),
    Column("attempt", Integer),
    Column("pid", Integer),
    Column("at_s", Float),
)
QUICK = Backoff(attempts=3, first_s=0.0)


class Order(BaseModel):
    """A message with something to validate."""

    id: int


def note(ctx: Context, handler: str) -> None:
    """One effect, in this message's transaction."""
    ctx.connection.execute(
        insert(effects).values(
            message_id=ctx.message.id,
            handler=handler,
            attempt=ctx.message.attempt,
            pid=os.getpid(),
            at_s=time.monotonic(),
        )
    )


@app.on_worker_start
def start(state: SimpleNamespace) -> None:
    """What every handler of this worker finds."""
    state.greeting = f"hello from {os.getpid()}"


@app.on_worker_stop
def stop(state: SimpleNamespace) -> None:
    """Leaves a trace of the orderly end."""
    structlog.get_logger("tests").info("stopped in order", greeting=state.greeting)


@app.handler("t.store", retry=QUICK)
def store(order: Order, ctx: Context) -> None:
    """The plain case: one row, one message on."""
    note(ctx, "store")
    ctx.bus.publish("t.stored", {"id": order.id})


@app.handler("t.stored")
async def stored(event: dict[str, Any], ctx: AsyncContext) -> None:
    """Counts over the database channel."""
    await ctx.db.execute(
        "INSERT INTO effects (message_id, handler, attempt, pid, at_s) VALUES (:id, 'stored', 1, :pid, 0)",
        {"id": str(event["id"]), "pid": os.getpid()},
    )


@app.handler("t.only", retry=QUICK)
def only(order: Order, ctx: Context) -> None:
    """A row and nothing else."""
    note(ctx, "only")


@app.handler("t.once", retry=QUICK)
def once(order: Order, ctx: Context) -> None:
    """A row, and not a second one after a commit whose end nobody saw."""
    if ctx.redelivered_after is not None:
        found = ctx.connection.execute(select(effects.c.n).where(effects.c.message_id == ctx.message.id))
        if found.first() is not None:
            return
    note(ctx, "once")


@app.handler("t.fails", retry=QUICK)
def fails(payload: dict[str, Any], ctx: Context) -> None:
    """Raises what it is told to, after an effect that has to be undone."""
    note(ctx, "fails")
    ctx.bus.publish("t.stored", {"id": 0})
    if ctx.message.attempt <= payload.get("times", 99):
        kinds: dict[str, BaseException] = {
            "value": ValueError("no such order"),
            "exit": SystemExit(3),
            "interrupt": KeyboardInterrupt(),
            "generator": GeneratorExit(),
            "two": TwoArguments(1, 2),
            "reject": Reject("closed"),
            "retry": Retry("later", delay=0),
        }
        raise kinds[payload["kind"]]


class TwoArguments(Exception):  # noqa: N818
    """Its pickle does not come back: that broke a whole pool."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"two: {a} {b}")


@app.handler("t.dies", retry=QUICK)
def dies(payload: dict[str, Any], ctx: Context) -> None:
    """Takes its worker with it, after an effect that has to be undone."""
    note(ctx, "dies")
    if ctx.message.attempt <= payload.get("times", 99):
        match payload["how"]:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), 9)
            case "abort":
                ctypes.CDLL(None).abort()
            case "grows":
                held = bytearray(payload["mib"] * 2**20)
                time.sleep(0.5)
                ctypes.string_at(0)
                del held


@app.handler("t.commits", retry=QUICK)
def commits(payload: dict[str, Any], ctx: Context) -> None:
    """Ends in its commit the first time, before or after the database has done it; says what it was told of that."""
    note(ctx, f"commits after {ctx.redelivered_after}")
    if ctx.redelivered_after is None:
        connection = ctx.connection

        @event.listens_for(connection, "commit")
        def die(_: Connection) -> None:
            if payload["when"] != "before":
                connection.connection.commit()
            if payload["when"] == "lost":
                raise DatabaseUnavailable("the server went away in the middle of a COMMIT")
            os.kill(os.getpid(), 9)


@app.handler("t.loses", retry=QUICK)
def loses(payload: dict[str, Any], ctx: Context) -> None:
    """Ends its own connection to the database, each time that it runs."""
    ctx.log.info("begun")
    ctx.connection.exec_driver_sql(payload["statement"])


@app.handler("t.forks", retry=QUICK)
def forks(payload: dict[str, Any], ctx: Context) -> None:
    """Forks a child that comes back from the handler, and waits for it."""
    note(ctx, "forks")
    pid = os.fork()
    if pid == 0:
        if payload["raises"]:
            raise ValueError("in the child")
        return
    _, status = os.waitpid(pid, 0)
    ctx.log.info("the child has ended", code=os.waitstatus_to_exitcode(status))


@app.handler("t.sleeps", retry=QUICK)
def sleeps(payload: dict[str, Any], ctx: Context) -> None:
    """Takes its time, then has an effect: SQLite's one write lock is not held meanwhile."""
    ctx.log.info("begun")
    time.sleep(payload["s"])
    note(ctx, "sleeps")


@app.handler("t.waits", retry=QUICK)
def waits(payload: dict[str, Any], ctx: Context) -> None:
    """Runs until a file is there, then has an effect."""
    ctx.log.info("begun")
    while not Path(payload["until"]).exists():
        time.sleep(0.02)
    note(ctx, "waits")


@app.handler("t.idles", retry=QUICK)
def idles(payload: dict[str, Any], ctx: Context) -> None:
    """Takes its time and holds nothing."""
    ctx.log.info("begun")
    time.sleep(payload["s"])


@app.handler("t.regex")
def regex(payload: dict[str, Any], ctx: Context) -> None:
    """C code that holds the interpreter's lock for longer than anybody waits."""
    ctx.log.info("begun")
    re.match("(a+)+$", "a" * payload["n"] + "b")


@app.handler("t.deadline", retry=QUICK, timeout=0.3)
def deadline(payload: dict[str, Any]) -> None:
    """Python code that can be interrupted, C code that cannot, and code that swallows the exception."""
    match payload["how"]:
        case "python":
            time.sleep(30)
        case "c":
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)
        case "freezes":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "swallows":
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(30)


@app.handler("t.now")
def now(payload: dict[str, Any], ctx: Context) -> None:
    """Publishes inside the handler, to where nobody is, or to a queue."""
    ctx.bus.publish_now(payload["to"], {"id": 1})


@app.handler("t.channel")
def channel(payload: dict[str, Any], ctx: Context) -> None:
    """Works over the database channel, in one transaction."""
    with ctx.db.transaction() as tx:
        tx.execute(
            "INSERT INTO effects (message_id, handler, attempt, pid, at_s) VALUES (?, 'channel', 1, ?, 0)",
            [ctx.message.id, os.getpid()],
        )
        if payload.get("die"):
            os.kill(os.getpid(), 9)


@app.handler("t.both")
def both(payload: dict[str, Any], ctx: Context) -> None:
    """Writes to one SQLite file both ways."""
    note(ctx, "both")
    ctx.db.execute("DELETE FROM effects")


@app.handler("t.nested")
def nested(payload: dict[str, Any], ctx: Context) -> None:
    """Publishes past every check what AMQP has no type for."""
    ctx.bus._kept.keep(Outgoing("t.answers", b"1", message_id="odd", headers={"a": 2**64 - 1}))  # type: ignore[attr-defined]


@app.handler("t.prints")
def prints(payload: dict[str, Any], ctx: Context) -> None:
    """Talks."""
    print("printed", payload["n"])  # noqa: T201
    ctx.log.info("logged", n=payload["n"])


@app.handler("t.modules")
def modules(payload: dict[str, Any], ctx: Context) -> None:
    """Says what a worker has imported."""
    ctx.bus.publish("t.answers", {"modules": sorted(sys.modules)})


@app.handler("t.stubborn")
async def stubborn(payload: dict[str, Any]) -> None:
    """Does not let itself be cancelled."""
    structlog.get_logger("tests").info("begun")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)


@app.handler("t.answers")
async def answers(payload: dict[str, Any]) -> None:
    """Where answers go."""


@app.handler("t.ends", retry=QUICK)
async def ends(payload: dict[str, bool], ctx: AsyncContext) -> None:
    """Takes the whole service along when it is told to."""
    if payload["ends"]:
        os._exit(7)
    await ctx.db.execute(
        "INSERT INTO effects (message_id, handler, attempt) VALUES (:id, 'ends', :attempt)",
        {"id": ctx.message.id, "attempt": ctx.message.attempt},
    )
