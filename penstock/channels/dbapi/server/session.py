"""A session on a database server, where results end with their transaction."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Final

from penstock.channels.db.calls import End, Failed
from penstock.channels.dbapi.session import DriverSession
from penstock.errors import DatabaseBusy, DatabaseError

#: The attribute of an exception that says so; PEP 249 has no word for it.
_MARK: Final = "is_disconnect"


class ServerSession(DriverSession):
    """What MySQL's and PostgreSQL's have in common."""

    def failure(self, failed: Failed) -> Exception:
        """Marked, when the connection to the server was lost; with `DatabaseBusy` as its cause when none was to be had."""
        error = self.driver_error(failed)
        if failed.is_disconnect:
            setattr(error, _MARK, True)
        if failed.code_name == DatabaseBusy.__name__:
            error.__cause__ = DatabaseBusy(failed.text)
        return error

    def refusal(self, error: DatabaseError) -> Exception:
        """A connection that was not to be had in time is an OperationalError, whose cause is `DatabaseBusy`."""
        name = "OperationalError" if isinstance(error, DatabaseBusy) else error.kind
        return self.driver_error(Failed(name, str(error)))

    @abstractmethod
    def driver_error(self, failed: Failed) -> Exception:
        """What the driver raised over there, as an exception of its class."""

    def _finish(self, method: str, number: int) -> None:
        self._cursors.clear()
        answer = self._call("end", End(number, method == "commit"), Failed | None)
        if answer is not None:
            self._settle()
            raise self.failure(answer)


def is_disconnect(error: Any) -> bool:
    """True when the connection to the server was lost with this error."""
    return getattr(error, _MARK, False) is True
