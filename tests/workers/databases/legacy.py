"""An application's own engine and session, as it has had them for years; a test puts the URL in before it is imported."""

from __future__ import annotations

import os

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker

engine = create_engine(os.environ["LEGACY_URL"])
DBSession = scoped_session(sessionmaker(engine))
NOTHING = "to adopt"
unbound = scoped_session(sessionmaker())


def store(number: int) -> None:
    """Deep in somebody's code, where there is no context."""
    DBSession.execute(text("INSERT INTO item (id, name, n) VALUES (:id, 'legacy', 0)"), {"id": number})
