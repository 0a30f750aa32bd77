"""What may stand in a dialect's URL over the channel: its name, and nothing more."""

from __future__ import annotations

from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from penstock.channels.db.secrets import shown_url


def check_nameless(url: URL) -> None:
    """Raises `ArgumentError` for a URL that names anything: the channel leads to `database.url`."""
    if url.database or url.host or url.username or url.query:
        msg = (
            f"write {url.drivername}://, without more: the channel leads to the database in database.url, not to "
            f"{shown_url(url)}"
        )
        raise ArgumentError(msg)
