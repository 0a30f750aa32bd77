"""The asynchronous driver for MySQL and MariaDB, with bytes as parameters.

aiomysql 0.3 calls something for bytes that PyMySQL 1.2 no longer has; PyMySQL's own escaping is right.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiomysql  # type: ignore[import-untyped]
from pymysql.converters import escape_item
from sqlalchemy import URL


class _Connection(aiomysql.Connection):  # type: ignore[misc]
    def escape(self, obj: Any) -> Any:
        """The value as it stands in a statement."""
        return escape_item(obj, self.charset) if isinstance(obj, bytes) else super().escape(obj)


def creator(url: URL) -> Callable[[], Awaitable[Any]]:
    """What opens a connection."""
    arguments, options = url.get_dialect()().create_connect_args(url)

    async def connect() -> Any:
        connection = _Connection(*arguments, **options)
        await connection._connect()  # noqa: SLF001 - as aiomysql.connect does
        return connection

    return connect
