"""The application whose database server is under fault: a message is one row, on whichever way its queue says.

`r.own` is the worker's own connection (or an adopted engine), `r.session` an adopted `scoped_session`, `r.channel` the
same body with `database="channel"`, `r.db` three calls of `ctx.db`. One charged failure would be a dead letter.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

from penstock import App, Backoff, Context

#: The database, for the engine that is adopted; and the file in which runs are noted, outside of any transaction.
URL_VARIABLE: Final = "ROWS_URL"
RUNS_VARIABLE: Final = "ROWS_RUNS"
#: The note of a run that has begun, and of one that has nothing left to do but commit.
BEGUN: Final = "begun"
ASKED: Final = "asked"

_CONNECTION: Final = {
    "mysql": "CONNECTION_ID()",
    "mariadb": "CONNECTION_ID()",
    "postgresql": "pg_backend_pid()",
}
_PUT: Final = (
    "INSERT INTO done (message_id, attempt, after_what, pid, connection) "
    "VALUES (:message_id, :attempt, :after_what, :pid, {connection})"
)
_COUNT: Final = "SELECT count(*) AS found FROM done WHERE message_id = :message_id"


class Row(BaseModel):
    """How long its transaction takes at least, in seconds."""

    held_s: float


#: As old applications have it; nothing is connected before somebody uses it.
engine = create_engine(os.environ.get(URL_VARIABLE, "sqlite://"))
DBSession = scoped_session(sessionmaker(engine))

app = App()
_NO_CHARGE: Final = Backoff(attempts=1)


@app.handler("r.own", retry=_NO_CHARGE)
def own(row: Row, ctx: Context) -> None:
    """On the worker's own connection."""
    _store(row, ctx)


@app.handler("r.timed", retry=_NO_CHARGE, timeout=0.5)
def timed(row: Row, ctx: Context) -> None:
    """With a deadline: on the worker's own connection, or an adopted one."""
    _store(row, ctx)


@app.handler("r.channel", retry=_NO_CHARGE, database="channel")
def over_channel(row: Row, ctx: Context) -> None:
    """The same, over the loop."""
    _store(row, ctx)


@app.handler("r.session", retry=_NO_CHARGE)
def session(row: Row, ctx: Context) -> None:
    """By a session of the application's."""
    _note(ctx, BEGUN)
    DBSession.execute(text(_put()), _values(ctx))
    time.sleep(row.held_s)
    assert DBSession.execute(text(_COUNT), {"message_id": ctx.message.id}).scalar_one() >= 1
    _note(ctx, ASKED)


@app.handler("r.db", retry=_NO_CHARGE)
def by_calls(row: Row, ctx: Context) -> None:
    """Over the database channel."""
    _note(ctx, BEGUN)
    with ctx.db.transaction() as transaction:
        transaction.execute(_put(), _values(ctx))
        time.sleep(row.held_s)
        found = transaction.fetch_one(_COUNT, {"message_id": ctx.message.id})
        assert found is not None
        assert found["found"] >= 1
        _note(ctx, ASKED)


def _store(row: Row, ctx: Context) -> None:
    _note(ctx, BEGUN)
    ctx.connection.execute(text(_put()), _values(ctx))
    time.sleep(row.held_s)
    assert ctx.connection.execute(text(_COUNT), {"message_id": ctx.message.id}).scalar_one() >= 1
    _note(ctx, ASKED)


def _put() -> str:
    return _PUT.format(connection=_CONNECTION[engine.dialect.name])


def _values(ctx: Context) -> dict[str, Any]:
    return {
        "message_id": ctx.message.id,
        "attempt": ctx.message.attempt,
        "after_what": ctx.redelivered_after,
        "pid": os.getpid(),
    }


def _note(ctx: Context, what: str) -> None:
    # One write of one short line, by whichever process: it is there whole, whatever happens next.
    fd = os.open(os.environ[RUNS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, f"{ctx.message.id} {what} {ctx.message.attempt} {os.getpid()}\n".encode())
    finally:
        os.close(fd)
