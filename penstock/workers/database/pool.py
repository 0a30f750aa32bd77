"""A pool of exactly one connection, which is never shared."""

from __future__ import annotations

from sqlalchemy.pool import AssertionPool, ConnectionPoolEntry

from penstock.errors import ConnectionMisused


class OneConnection(AssertionPool):
    """The pool of the worker's engine.

    "Does SQLAlchemy's pool do it for me?" It keeps a connection open, but as a pool it does not do what a
    worker needs. QueuePool would hand a second one to whoever asks (a second writer, which on SQLite waits for
    the first one for ever); StaticPool would hand out the *same* one twice, so that the second user's rollback
    undoes the first one's message; NullPool opens one each time. And `pool_pre_ping` tests at checkout only,
    which a held connection never sees again. So the worker checks one connection out and keeps it, tests and
    resets it itself, and this pool refuses a second checkout.
    """

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return super()._do_get()
        except AssertionError:
            msg = (
                "a worker has one database connection and ctx.connection is it: use ctx.connection or ctx.session "
                "where this handler used the engine (ctx.connection.engine)"
            )
            raise ConnectionMisused(msg) from None
