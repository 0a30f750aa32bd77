"""The database channel's end on the loop: the service named "db", for the kind of database that `database.url` names.

```
call ─▶ ─┬─ a file ───▶ SqliteDatabase ─▶ one writer, a few readers
         └─ a server ─▶ ServerDatabase ─▶ a pool of connections
```
Nothing is opened before the first call, so that a service whose handlers never say `ctx.db` leaves the database alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from penstock.channels.db.exact import is_server
from penstock.channels.db.faults import stopping
from penstock.channels.db.sqlite.service import SqliteDatabase
from penstock.channels.db.sqlite.writer import WriterStatistics
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection

if TYPE_CHECKING:
    from penstock.channels.db.server.service import ServerDatabase

#: The frame around a result.
_FRAME_BYTES: Final = 64


class DatabaseService:
    """The service named "db"; `frame_bytes` is what a result may fill."""

    def __init__(self, section: DatabaseSection, *, frame_bytes: int) -> None:
        self._section = section
        self._limit_bytes = frame_bytes - _FRAME_BYTES
        self.is_server = is_server(section)
        """True when the database is a server, whose values keep their types on the wire."""
        self._sqlite = SqliteDatabase(section, limit_bytes=self._limit_bytes)
        self._server: ServerDatabase | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<DatabaseService [{self._server if self.is_server else self._sqlite!r}]>"

    def statistics(self) -> WriterStatistics | None:
        """The writer's counts and who holds it; None before the first call, and for a server."""
        return self._sqlite.statistics()

    async def start(self) -> None:
        """Look which database it is. Raises `ConfigurationError` for a file that no call could use.

        A server's URL is told to whoever calls first.
        """
        self._is_closed = False
        if not self.is_server:
            self._sqlite.start()

    async def aclose(self) -> None:
        """Roll back what is open, finish what is being written, close every connection; harmless when repeated."""
        self._is_closed = True
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()
        await self._sqlite.aclose()

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:
        """Answer the calls that `calls.py` types. Raises `DatabaseError`, and `ChannelClosed` when the service is stopping."""
        database = self._opened_server() if self.is_server else self._sqlite
        return await database.call(method, arguments, caller)

    def forget(self, caller: Caller) -> None:
        """Roll back the caller's open transaction at once, end what it reads and withdraw its waiting calls."""
        if self._server is not None:
            self._server.forget(caller)
        self._sqlite.forget(caller)

    def _opened_server(self) -> ServerDatabase:
        if self._server is None:
            if self._is_closed:
                raise stopping()
            # Late: the asynchronous engine costs time and memory, and SQLite needs none.
            from penstock.channels.db.server.service import ServerDatabase

            self._server = ServerDatabase(self._section, limit_bytes=self._limit_bytes)
        return self._server
