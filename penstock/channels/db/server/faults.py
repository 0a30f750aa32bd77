"""What a server's driver raises, in our words, or as the driver's own to be raised again in the worker."""

from __future__ import annotations

from typing import Final

from penstock.channels.db.calls import Failed
from penstock.channels.db.server.driver import Driver
from penstock.channels.db.statements import shown
from penstock.channels.db.words import words_of
from penstock.errors import DatabaseBusy, DatabaseError, DatabaseLost

#: What drivers raise beside their own, for parameters that do not fit the statement.
_PLAIN: Final = (TypeError, ValueError, KeyError, IndexError, OverflowError)
#: Why a statement was ended on the server.
GIVEN_UP: Final = (
    "nobody waited for it any more (a timeout or a cancellation in the handler, or its message is over)"
)
#: As the server itself would say that it has no connection left, by database: code and SQLSTATE.
_BUSY: Final = {"mysql": (1040, None), "postgresql": (None, "53300")}


class DriverFailure(Exception):  # noqa: N818 - never leaves this package
    """What the driver raised, on its way to the caller."""

    def __init__(self, error: Exception, *, is_gone: bool, is_ended: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_gone = is_gone
        """The connection ended with it."""
        self.is_ended = is_ended
        """Nobody waited for the statement any more, so the server was told to end it."""


def translated(failure: Exception, statement: str) -> Exception:
    """The error for a caller of `ctx.db`; never with parameters, which may be secret. Its cause is the driver's."""
    return _translated(failure, shown(statement), is_commit=False)


def translated_end(failure: Exception, *, is_commit: bool) -> Exception:
    """As `translated`, for whoever commits or rolls back."""
    return _translated(failure, "commit" if is_commit else "rollback", is_commit=is_commit)


def _translated(failure: Exception, what: str, *, is_commit: bool) -> Exception:
    made: Exception
    if isinstance(failure, DriverFailure):
        words = words_of(failure.error)
        if failure.is_ended:
            made = DatabaseError(f"the statement was ended on the server: {GIVEN_UP}", "OperationalError")
        elif failure.is_gone and is_commit:
            made = DatabaseLost(
                f"the connection to the database server was lost amid the commit: {words}; whether it was kept is not known"
            )
        elif failure.is_gone:
            made = DatabaseLost(
                f"the connection to the database server was lost: {words}; the transaction is gone"
            )
        else:
            made = DatabaseError(f"{words}: {what}", type(failure.error).__name__)
        made.__cause__ = failure.error
    elif isinstance(failure, _PLAIN):
        made = DatabaseError(f"{words_of(failure)}: {what}", "ProgrammingError")
        made.__cause__ = failure
    else:
        return failure
    return made


def failed(failure: Exception, driver: Driver, *, transaction: int | None, was_inside: bool) -> Failed:
    """What the worker raises again; `transaction` is what is open after it, `was_inside` whether one was before.

    Raises what is no fault of the statement: a closed channel.
    """
    is_lost = was_inside and transaction is None
    text = str(failure)
    if isinstance(failure, DatabaseBusy):
        code, sqlstate = _BUSY[driver.backend]
        arguments = [text] if code is None else [code, text]
        return Failed(
            "OperationalError", text, code, "DatabaseBusy", transaction, is_lost, arguments, sqlstate
        )
    if isinstance(failure, DatabaseError):
        return Failed(failure.kind, text, None, None, transaction, is_lost, [text])
    if isinstance(failure, DriverFailure):
        error = failure.error
        sqlstate, diagnostics = driver.diagnostics_of(error)
        arguments = driver.arguments_of(error)
        code = arguments[0] if arguments and isinstance(arguments[0], int) else None
        # The socket's error is none of the driver's.
        name = "OperationalError" if isinstance(error, OSError) else type(error).__name__
        return Failed(
            name, text, code, None, transaction, is_lost, arguments, sqlstate, diagnostics, failure.is_gone
        )
    if isinstance(failure, _PLAIN):
        return Failed(type(failure).__name__, text, None, None, transaction, is_lost, [text])
    raise failure
