"""The application under fault: a message says what its handling does, and the database remembers what was done."""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, insert

from penstock import App, AsyncContext, Backoff, Context, Reject, Retry

#: File that every run is noted in as it begins, outside of any transaction.
RUNS_VARIABLE: Final = "CRASH_RUNS"

app = App()
metadata = MetaData()
#: Inside the handler's transaction; no unique key, so that duplicates show.
effects = Table(
    "effects",
    metadata,
    Column("n", Integer, primary_key=True),
    Column("message_id", String, index=True),
    Column("queue", String),
    Column("attempt", Integer),
    Column("redelivered", Boolean),
    Column("pid", Integer),
    Column("at_s", Float, index=True),
)
#: Through a delay queue, most of the time: below a millisecond there is none.
QUICK: Final = Backoff(attempts=5, first_s=0.1, cap_s=0.2)


class Task(BaseModel):
    """What handling this message does, in this order."""

    s: float = 0.0
    """Sleeps, before its effect."""
    held_s: float = 0.0
    """Sleeps, after its effect and before its commit."""
    fails: int = 0
    """Raises, in so many attempts."""
    how: str = ""
    """Ends its worker so, in as many attempts as `fails` says."""
    dies: str = ""
    """Its worker is killed, in its first run: "before commit", or "after commit"."""
    rejects: bool = False
    publishes: bool = False
    """One message to `c.out`, after its commit."""
    pad: str = ""


_runs_fd: int | None = None


def note_run(message_id: str | None, attempt: int, *, redelivered: bool) -> None:
    """One line in the file of runs; a line this short is written whole or not at all."""
    global _runs_fd  # noqa: PLW0603 - one open file a process
    if _runs_fd is None:
        _runs_fd = os.open(os.environ[RUNS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = f"{message_id} {attempt} {int(redelivered)} {os.getpid()} {time.monotonic():.6f}\n"
    os.write(_runs_fd, line.encode())


def effect_of(ctx: Context | AsyncContext) -> dict[str, Any]:
    """The row that says that it was done."""
    return {
        "message_id": ctx.message.id,
        "queue": ctx.message.queue,
        "attempt": ctx.message.attempt,
        "redelivered": ctx.message.redelivered,
        "pid": os.getpid(),
        "at_s": time.monotonic(),
    }


def do(task: Task, ctx: Context) -> None:
    """What the message says."""
    note_run(ctx.message.id, ctx.message.attempt, redelivered=ctx.message.redelivered)
    ctx.log.debug("begun")
    if task.s:
        time.sleep(task.s)
    ctx.connection.execute(insert(effects).values(effect_of(ctx)))
    if task.publishes:
        ctx.bus.publish("c.out", {"of": ctx.message.id})
    if task.held_s:
        time.sleep(task.held_s)
    if task.dies and ctx.message.attempt == 1:
        die_around_commit(ctx, task.dies)
    if task.rejects:
        raise Reject("as it was told")
    if ctx.message.attempt <= task.fails:
        end_so(task.how)


def die_around_commit(ctx: Context, when: str) -> None:
    """The commit comes after the handler, so the driver's own is replaced; nobody else will use this process."""
    dialect = ctx.connection.dialect
    commit = dialect.do_commit

    def do_commit(connection: Any) -> None:
        if when == "after commit":
            commit(connection)
        os.kill(os.getpid(), 9)

    dialect.do_commit = do_commit  # type: ignore[assignment, method-assign]


def end_so(how: str) -> None:
    """Fail, or take the process along."""
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), 9)
        case "exit":
            os._exit(7)
        case "group":
            # As a memory limit of a container does: everybody in it.
            os.killpg(os.getpgid(0), 9)
        case "fork":
            if os.fork() == 0:
                # Holds a copy of everything that the worker has open.
                time.sleep(8)
                os._exit(0)
            os.kill(os.getpid(), 9)
        case "c":
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)
    raise ValueError("as it was told")


@app.handler("c.work", retry=QUICK)
def work(task: Task, ctx: Context) -> None:
    """On a quorum queue."""
    do(task, ctx)


@app.handler("c.classic", type="classic", retry=QUICK)
def classic(task: Task, ctx: Context) -> None:
    """On a classic queue."""
    do(task, ctx)


@app.handler("c.limited", retry=QUICK, timeout=0.5)
def limited(task: Task, ctx: Context) -> None:
    """With a deadline."""
    do(task, ctx)


@app.handler("c.patient", retry=QUICK)
def patient(task: Task, ctx: Context) -> None:
    """Asks to come again much later, the first time."""
    if ctx.message.attempt == 1:
        note_run(ctx.message.id, 1, redelivered=ctx.message.redelivered)
        raise Retry("later", delay=3)
    do(task, ctx)


@app.handler("c.empty")
def empty(_task: Task) -> None:
    """Does nothing at all."""


@app.handler("c.loop", retry=QUICK)
async def loop(task: Task, ctx: AsyncContext) -> None:
    """On the loop, over the database channel."""
    await do_on_the_loop(task, ctx)


@app.handler("c.loop.classic", type="classic", retry=QUICK)
async def loop_classic(task: Task, ctx: AsyncContext) -> None:
    """On the loop, from a classic queue."""
    await do_on_the_loop(task, ctx)


async def do_on_the_loop(task: Task, ctx: AsyncContext) -> None:
    """What the message says."""
    note_run(ctx.message.id, ctx.message.attempt, redelivered=ctx.message.redelivered)
    if task.held_s:
        # Blocks the loop, which nobody should do.
        time.sleep(task.held_s)  # noqa: ASYNC251 - see above
    if task.how and ctx.message.attempt <= task.fails:
        end_so(task.how)
    await ctx.db.execute(
        "INSERT INTO effects (message_id, queue, attempt, redelivered, pid, at_s) "
        "VALUES (:message_id, :queue, :attempt, :redelivered, :pid, :at_s)",
        effect_of(ctx),
    )
    if task.publishes:
        ctx.bus.publish("c.out", {"of": ctx.message.id})
