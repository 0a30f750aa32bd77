"""Passwords that the settings hold, to keep them out of everything that is written.

Each part words its errors without them; this is the second line, for texts of libraries, and for tracebacks.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

if TYPE_CHECKING:
    from penstock.config import Settings

HIDDEN: Final = "***"
#: A shorter password, or one that is also the user's name, is hidden only where it stands behind its user.
MIN_CHARS: Final = 5


class Secrets:
    """The passwords of settings that were loaded; `hide` takes them out of a text."""

    def __init__(self) -> None:
        self._texts: list[tuple[str, str]] = []

    def __repr__(self) -> str:
        return f"<Secrets [{len(self._texts)} texts]>"

    def add(self, settings: Settings) -> None:
        """Remember the passwords in the settings' URLs, and the endpoint's token."""
        self.add_url(settings.bus.url.get_secret_value())
        if settings.database.url is not None:
            self.add_url(settings.database.url.get_secret_value())
        if settings.http.token is not None:
            self._know({settings.http.token.get_secret_value(): HIDDEN})

    def add_url(self, url: str) -> None:
        """Remember the passwords in one URL, as written and decoded."""
        found: dict[str, str] = {}
        scheme, _, rest = url.partition("://")
        netloc = rest.partition("/")[0]
        if "@" not in netloc and not scheme.startswith("sqlite"):
            # A slash that should have been written %2F: the URL is wrong, and its password still one.
            netloc = rest
        user, colon, password = netloc.rpartition("@")[0].partition(":")
        if colon and password:
            for form in _forms(password):
                found[f"{user}:{form}@"] = f"{user}:{HIDDEN}@"
                if len(form) >= MIN_CHARS and unquote(user) != unquote(password):
                    found[form] = HIDDEN
        for name, value in _query(url):
            if "pass" in name.lower() and value:
                found |= {f"{name}={form}": f"{name}={HIDDEN}" for form in _forms(value)}
                found |= {form: HIDDEN for form in _forms(value) if len(form) >= MIN_CHARS}
        self._know(found)

    def _know(self, found: dict[str, str]) -> None:
        # The longest first: one may be part of another.
        known = dict(self._texts) | found
        self._texts = sorted(known.items(), key=lambda pair: len(pair[0]), reverse=True)

    def hide(self, text: str) -> str:
        """The text without any of them."""
        for secret, hidden in self._texts:
            text = text.replace(secret, hidden)
        return text

    def processor(
        self, _logger: Any, _level: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """For structlog, before rendering: every text of an event, its traceback included."""
        from structlog.processors import format_exc_info

        event = format_exc_info(_logger, _level, event)
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = self.hide(value)
            elif not isinstance(value, int | float | bool | None):
                text = repr(value)
                hidden = self.hide(text)
                if hidden != text:
                    event[key] = hidden
        return event


def masked(url: str) -> str:
    """A URL as it may be shown: without its password, and without passwords in its query."""
    own = Secrets()
    own.add_url(url)
    return own.hide(url)


def _query(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query)
    except ValueError:
        return []


def _forms(password: str) -> set[str]:
    plain = unquote(password)
    return {password, plain, quote(plain, safe=""), quote_plus(plain)}
