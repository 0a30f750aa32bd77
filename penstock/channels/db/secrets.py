"""The database's URL in a text: without its password, and without what a driver may quote of it."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, quote_plus

from sqlalchemy import URL

_HIDDEN: Final = "***"


def shown_url(url: URL) -> str:
    """The URL for the log. The query goes, too: drivers take passwords there."""
    return url.set(query={}).render_as_string(hide_password=True)


class Scrubber:
    """Takes the URL's secrets out of texts."""

    def __init__(self, url: URL) -> None:
        self._secrets = _secrets_of(url)

    def __call__(self, text: str) -> str:
        """The text without them."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return text


def _secrets_of(url: URL) -> list[str]:
    secrets = {str(url.password)} if url.password else set()
    for key, value in url.query.items():
        if "pass" in key.lower():
            secrets.update([value] if isinstance(value, str) else value)
    quoted = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    # The longest first: one secret may be part of another.
    return sorted(filter(None, quoted), key=len, reverse=True)
