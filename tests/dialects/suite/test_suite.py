"""SQLAlchemy's dialect compliance suite, all of it."""

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest as TheirServerSideCursorsTest


class ServerSideCursorsTest(TheirServerSideCursorsTest):
    """It knows a streamed cursor by its driver's way; ours says so."""

    def _is_server_side(self, cursor: object) -> bool:
        is_ours = self.engine.dialect.driver == "penstock"
        return cursor.is_streamed if is_ours else super()._is_server_side(cursor)


del TheirServerSideCursorsTest
