"""What a handler holds of the connection: a SQLAlchemy Connection and a Session that live for one message.

The driver's connection stays; these two are made anew (4 µs) and thrown away, and with them whatever a handler
hung on them: events, execution options, identity map. Both share one transaction, whoever began it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, event
from sqlalchemy.engine import RootTransaction
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import PoolProxiedConnection

from penstock.errors import ConnectionMisused, TransactionUndone

_LEAVE_OPEN = (
    "it belongs to the worker and its transaction is committed when the handler returns: use it without `with` and "
    "without close(), or end the transaction before with commit() or rollback()"
)

_STREAM_IS_OPEN = (
    "another statement on the worker's connection while a streamed result (stream_results, yield_per) is open on it: with "
    "MySQL its remaining rows would be lost without a word. Read large results with ctx.stream(statement), which has a "
    "connection of its own, or read the result to its end, or close it, before. The message is rolled back"
)


def session_words(what: str) -> str:
    """Why `ctx.session` is not to be closed, reset or invalidated."""
    return f"ctx.session was {what} inside its transaction, which would undo it; {_LEAVE_OPEN}"


class MessageConnection(Connection):
    """`ctx.connection`: commit() and rollback() are for the session too."""

    def __init__(
        self,
        engine: Engine,
        held: PoolProxiedConnection | None,
        before_transaction: Callable[[], None] | None,
    ) -> None:
        """Without `held` it takes one of the engine's pool. Raises what SQLAlchemy raises."""
        # Before: an application's listener to `engine_connect` may send a statement.
        self._before_transaction = before_transaction
        self._is_over = False
        self._stream: CursorResult[Any] | None = None
        self.message_session: MessageSession | None = None
        super().__init__(engine, held)

    def _execute_context(self, *args: Any, **options: Any) -> CursorResult[Any]:
        # Every statement comes by here, a session's flush too; as an event it would cost ten times as much.
        self._refuse_amid_stream()
        result = super()._execute_context(*args, **options)
        execution_options = args[4]
        if execution_options.get("stream_results") or execution_options.get("yield_per"):
            self._stream = result
        return result

    def _refuse_amid_stream(self) -> None:
        if self._stream is not None and not self._stream._soft_closed:  # noqa: SLF001 - `closed` means something else
            # It would stand in the way of the rollback, too.
            self.close_stream()
            raise ConnectionMisused(_STREAM_IS_OPEN)

    def close_stream(self) -> None:
        """End the streamed result that the handler did not read to its end."""
        result, self._stream = self._stream, None
        if result is not None:
            result.close()

    def begin(self) -> RootTransaction:
        """As SQLAlchemy's, which calls it before the first statement too.

        Raises `ConnectionMisused` when the message is over.
        """
        if self._is_over:
            msg = (
                "ctx.connection or ctx.session of an earlier message was used: it ends with its message, so take it from "
                "ctx each time and keep neither it nor a Session made with it"
            )
            raise ConnectionMisused(msg)
        if self._before_transaction is not None:
            self._before_transaction()
        return super().begin()

    def commit(self) -> None:
        """Commit what the handler did so far, the session's changes too; the next statement begins a new transaction."""
        self._refuse_amid_stream()
        session = self.message_session
        if session is not None and session.in_transaction():
            session.commit_with(self)
        super().commit()

    def rollback(self) -> None:
        """Undo what the handler did since the last commit; the next statement begins a new transaction."""
        self.close_stream()
        session = self.message_session
        if session is not None and session.in_transaction():
            session.rollback_with(self)
        super().rollback()

    def close(self) -> None:
        """Nothing, after a commit or a rollback. Raises `ConnectionMisused` while there is something to lose."""
        if self.in_transaction():
            msg = f"ctx.connection was closed inside its transaction, which would undo it; {_LEAVE_OPEN}"
            raise ConnectionMisused(msg)

    def detach(self) -> None:
        """Raises `ConnectionMisused`: the worker has no other."""
        msg = "ctx.connection cannot be detached: it is the worker's only one"
        raise ConnectionMisused(msg)

    def __exit__(self, type_: type[BaseException] | None, value: object, traceback: object) -> None:
        if type_ is None:
            self.close()
        else:
            self.rollback()

    def end(self) -> None:
        """The message is over: what still holds this connection gets words instead of a transaction."""
        self._is_over = True
        session, self.message_session = self.message_session, None
        if session is not None:
            session.release()

    def give_back(self) -> None:
        """Close for good; used when the driver's connection is to be replaced."""
        super().close()


class MessageSession(Session):
    """`ctx.session`: an ORM session on `ctx.connection` and inside its transaction."""

    #: The transaction that this session takes part in, written when it joins.
    root: RootTransaction | None = None

    def __init__(self, connection: MessageConnection) -> None:
        # control_fully: whoever began the transaction, commit() and rollback() here mean it.
        super().__init__(connection, join_transaction_mode="control_fully")

    def commit_with(self, connection: MessageConnection) -> None:
        """Flush and commit, also when the handler ended the transaction on the connection in between.

        Raises `TransactionUndone` after a flush that failed, which has undone everything, until somebody rolls back.
        """
        transaction = self.get_transaction()
        if transaction is not None and not self.is_active:
            raise TransactionUndone from transaction._rollback_exception  # noqa: SLF001 - there is no other word for it
        self.flush()
        if self.root is connection.get_transaction():
            self.commit()
        else:
            self.release()

    def rollback_with(self, connection: MessageConnection) -> None:
        """Roll back and forget."""
        if self.root is connection.get_transaction():
            self.rollback()
        else:
            self.release()

    def close(self) -> None:
        """Forget all objects, after a commit or a rollback. Raises `ConnectionMisused` while there is something to lose."""
        self._refuse_inside("closed")
        self.release()

    def reset(self) -> None:
        """As `close`."""
        self._refuse_inside("reset")
        self.release()

    def invalidate(self) -> None:
        """As `close`, and the connection is thrown away."""
        self._refuse_inside("invalidated")
        super().invalidate()

    def _refuse_inside(self, what: str) -> None:
        if self.in_transaction():
            raise ConnectionMisused(session_words(what))

    def __exit__(self, type_: type[BaseException] | None, value: object, traceback: object) -> None:
        if type_ is None:
            self.close()
        else:
            self.rollback()

    def release(self) -> None:
        """Close for good."""
        super().close()


@event.listens_for(MessageSession, "after_begin")
def _note_root(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    if isinstance(session, MessageSession):
        session.root = connection.get_transaction()
