"""An application's own engine and session, as it has had them for years; a test puts the URL in before it is imported."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.orm import scoped_session, sessionmaker

_password = os.environ.get("LEGACY_PASSWORD")
# As old applications have it: no room for a second connection, and its login in another place than the URL.
engine = create_engine(
    os.environ["LEGACY_URL"],
    connect_args={} if _password is None else {"password": _password},
    **({} if os.environ["LEGACY_URL"].startswith("sqlite") else {"pool_size": 2, "max_overflow": 0}),
)
DBSession = scoped_session(sessionmaker(engine))
#: As SQLAlchemy's manual has it for SQLite: the driver begins nothing by itself.
beginning = create_engine(os.environ["LEGACY_URL"])
autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
autocommitting = create_engine(os.environ["LEGACY_URL"], isolation_level="AUTOCOMMIT")
NOTHING = "to adopt"
unbound = scoped_session(sessionmaker())


def store(number: int) -> None:
    """Deep in somebody's code, where there is no context."""
    DBSession.execute(text("INSERT INTO item (id, name, n) VALUES (:id, 'legacy', 0)"), {"id": number})


@event.listens_for(beginning, "connect")
def _leave_transactions_to_us(raw: Any, _record: object) -> None:
    raw.isolation_level = None


@event.listens_for(beginning, "begin")
def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
