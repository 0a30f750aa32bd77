"""A private MariaDB and a PostgreSQL for a part of the benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from tests.servers import MariaDBServer, PostgreSQLServer, Server, Template

SERVERS: Final[dict[str, type[Server]]] = {"MariaDB": MariaDBServer, "PostgreSQL": PostgreSQLServer}


@contextmanager
def private(kind: type[Server]) -> Iterator[tuple[Server, str]]:
    """A server and the URL of an empty database on it; it does not wait for the disk, so that the way there shows."""
    with closing(Template(kind)) as template, kind(template) as server:
        yield server, server.new_database()
