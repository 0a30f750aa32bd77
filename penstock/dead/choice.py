"""Which letters are meant: by id, reason, exception, time and what their payload says. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Final, TypeAlias

from penstock.dead.letter import Letter
from penstock.errors import ConfigurationError

#: A moment: itself, `2h` (so long ago), or ISO 8601; without a time zone UTC is meant, as everywhere in a dead letter.
Moment: TypeAlias = datetime | timedelta | str
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_WORDS: Final[Mapping[Any, str]] = {None: "null", True: "true", False: "false"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Letters that fit everything that is set; nothing is set: all of them."""

    id: str | None = None
    reason: str | None = None
    """A part of the reason, upper or lower case."""
    exception: str | None = None
    """The exception's type, with or without its module; `*` stands for anything."""
    since: datetime | None = None
    """Failed last at this moment or later."""
    until: datetime | None = None
    """Failed last before this moment."""
    where: tuple[tuple[str, str], ...] = ()
    """Dotted paths into the payload, and what has to be there."""
    body_bytes: int = 16 * 1024 * 1024
    """A payload that unpacks to more than this is not looked into."""

    @property
    def is_everything(self) -> bool:
        """True when every letter fits."""
        return self == Choice(body_bytes=self.body_bytes)

    def fits(self, letter: Letter) -> bool:
        """Whether this letter is meant; the cheap questions first."""
        return (
            (self.id is None or letter.id == self.id)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and (self.exception is None or _is_named(letter.exception, self.exception))
            and ((self.since is None and self.until is None) or self._is_in_time(letter.failed_at))
            and (not self.where or self._says(letter))
        )

    def _is_in_time(self, failed_at: datetime | None) -> bool:
        if failed_at is None:
            return False
        return (self.since is None or failed_at >= self.since) and (
            self.until is None or failed_at < self.until
        )

    def _says(self, letter: Letter) -> bool:
        try:
            payload = letter.payload(self.body_bytes)
        except ValueError:
            return False
        return all(
            any(_is_same(value, wanted) for value in _at(payload, path)) for path, wanted in self.where
        )


def choose(
    *,
    id: str | None = None,  # noqa: A002 - the public word
    reason: str | None = None,
    exception: str | None = None,
    since: Moment | None = None,
    until: Moment | None = None,
    where: Mapping[str, Any] | None = None,
    body_bytes: int = 16 * 1024 * 1024,
    now: datetime | None = None,
) -> Choice:
    """A choice in a person's words; `now` is what relative times count from. Raises `ConfigurationError`."""
    now = now or datetime.now(UTC)
    return Choice(
        id=id,
        reason=reason,
        exception=exception,
        since=None if since is None else _moment("since", since, now),
        until=None if until is None else _moment("until", until, now),
        where=tuple((path, _text(value)) for path, value in (where or {}).items()),
        body_bytes=body_bytes,
    )


def _moment(name: str, given: Moment, now: datetime) -> datetime:
    try:
        if isinstance(given, timedelta):
            return now - given
        if isinstance(given, str):
            ago = _AGO.fullmatch(given.strip())
            if ago is not None:
                return now - timedelta(**{_UNITS[ago[2]]: float(ago[1])})
            given = datetime.fromisoformat(given.strip())
        return given.astimezone(UTC) if given.tzinfo is not None else given.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name}={given!r} is no moment: write 90s, 30m, 2h, 7d or 1w (so long ago), or a time such as 2026-11-21T09:30 "
            f"(UTC unless it says otherwise); nothing was done ({error})"
        ) from error


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return _WORDS[value] if value is None or isinstance(value, bool) else str(value)


def _is_named(found: str, wanted: str) -> bool:
    return bool(found) and (fnmatchcase(found, wanted) or fnmatchcase(found.rpartition(".")[2], wanted))


def _at(payload: object, path: str) -> list[object]:
    """What stands at a dotted path; a number is a place in a list, a name may have dots itself."""
    if not path:
        return [payload]
    found: list[object] = []
    parts = path.split(".")
    for count in range(1, len(parts) + 1):
        name, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if isinstance(payload, dict) and name in payload:
            found += _at(payload[name], rest)
        elif isinstance(payload, list) and count == 1 and name.isdecimal() and int(name) < len(payload):
            found += _at(payload[int(name)], rest)
    return found


def _is_same(value: object, wanted: str) -> bool:
    """A text has to be the same; a number the same number, however it is written."""
    if isinstance(value, str):
        return value == wanted
    if value is None or isinstance(value, bool):
        return _WORDS[value] == wanted
    if not isinstance(value, int | Decimal):
        return False
    try:
        return Decimal(value) == Decimal(wanted)
    except InvalidOperation:
        return False
