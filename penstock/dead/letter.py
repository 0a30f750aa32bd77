"""A dead letter as a person sees it, and the message that it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from msgspec.structs import replace

from penstock.app import header_names
from penstock.app.decode import unpacked
from penstock.app.messages import HeaderValue, History, Outgoing
from penstock.buses.contract import Delivery
from penstock.errors import PayloadError
from penstock.reactor import deadletter

#: What stands in for the id of a message that has none; the same every time.
_BODY_ID: Final = "sha256:"
#: Of its earlier ends a message keeps so many, and so much of each one's reason.
MAX_PAST: Final = 10
MAX_PAST_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of a dead-letter queue."""

    delivery: Delivery
    origin: str
    """The queue that the dead-letter queue belongs to."""

    @property
    def id(self) -> str:
        """The message's id; made from the body where it has none."""
        if self.delivery.message_id:
            return self.delivery.message_id
        return _BODY_ID + hashlib.sha256(self.delivery.body).hexdigest()[:12]

    @property
    def exchange(self) -> str:
        """The exchange that a handler published it to and that could not route it; empty for a queue."""
        return self.says(header_names.EXCHANGE)

    @property
    def destination(self) -> str:
        """Where it goes back to, in words: where it failed, or what it never reached."""
        return self.replayed().destination

    @property
    def exception(self) -> str:
        """The exception's type; empty when it was none."""
        return self.says(header_names.EXCEPTION)

    @property
    def failed_at(self) -> datetime | None:
        """When it failed last; None when nobody wrote that down."""
        try:
            moment = datetime.fromisoformat(self.says(header_names.LAST_AT))
        except ValueError:
            return None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)

    @property
    def identity(self) -> bytes | None:
        """Tells this letter from every other, also from the same message that failed once more; None without an id."""
        if not self.delivery.message_id:
            return None
        said = f"{self.delivery.message_id}\0{self.says(header_names.LAST_AT)}\0".encode()
        return hashlib.sha256(said + self.delivery.body).digest()

    def payload(self, limit_bytes: int) -> Any:
        """The body as JSON, its numbers exact. Raises `ValueError` for what is none, or unpacks to more than the limit."""
        try:
            body = unpacked(self.delivery.body, self.delivery.content_encoding, limit_bytes)
            return json.loads(body, parse_float=Decimal)
        except (PayloadError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def says(self, header: str) -> str:
        """A header as text; empty when it is not there."""
        value = self.delivery.headers.get(header)
        return "" if value is None else str(value)

    @property
    def reason(self) -> str:
        """Why it is here."""
        return self.says(header_names.REASON) or _broker_reason(
            self.delivery.headers.get(header_names.DEATHS)
        )

    @property
    def when(self) -> str:
        """When it failed last, UTC, to the second."""
        return self.says(header_names.LAST_AT)[:19].replace("T", " ")

    def release(self) -> None:
        """It is not meant, and goes back to its place."""
        self.delivery.settler.requeue(self.delivery.tag)

    def forget(self) -> None:
        """It is a dead letter no more."""
        self.delivery.settler.ack(self.delivery.tag)

    def evidence(self) -> dict[str, HeaderValue]:
        """What Penstock wrote on it, by names without its prefix."""
        return {
            name.removeprefix(header_names.PREFIX): value
            for name, value in self.delivery.headers.items()
            if name.startswith(header_names.PREFIX)
        }

    def own_headers(self) -> dict[str, HeaderValue]:
        """The headers that the message itself had."""
        headers = self.delivery.headers.items()
        return {
            name: value
            for name, value in headers
            if not name.lower().startswith(header_names.ON_A_DEAD_LETTER)
        }

    def replayed(self, now_s: float = 0.0) -> Outgoing:
        """The message as it first came, for its queue: attempts begin again, its id and what it went through stay.

        `now_s` is Unix time.
        """
        key = self.says(header_names.QUEUE) or self.origin
        message = deadletter.again(self.delivery, routing_key=key, headers=self.own_headers())
        return replace(message, exchange=self.exchange, history=self._history(now_s))

    def past(self) -> list[dict[str, Any]]:
        """How it ended each time before this one, oldest first; the last ten."""
        try:
            past = json.loads(self.says(header_names.PAST))
        except (ValueError, RecursionError):
            return []
        return [end for end in past if isinstance(end, dict)] if isinstance(past, list) else []

    def _history(self, now_s: float) -> History:
        end = {
            "failed_at": self.says(header_names.LAST_AT),
            "reason": self.reason[:MAX_PAST_REASON],
            "attempts": self._count(header_names.ATTEMPTS),
            "crashes": self._count(header_names.CRASHES),
            "replayed_at": deadletter.moment(now_s),
        }
        past = [*self.past(), end][-MAX_PAST:]
        while len((written := json.dumps(past)).encode()) > deadletter.MAX_PAST_BYTES and len(past) > 1:
            del past[0]
        return History(
            commit_unknown=self.delivery.headers.get(header_names.COMMIT_UNKNOWN) is True,
            replays=self._count(header_names.REPLAYS) + 1,
            past=written,
        )

    def _count(self, header: str) -> int:
        value = self.delivery.headers.get(header)
        return value if isinstance(value, int) and value > 0 else 0

    def body_text(self, limit_bytes: int) -> str:
        """The body to look at: JSON laid out, other text as it is, anything else as hexadecimal digits."""
        body = self.delivery.body
        cut = (
            f"\n… {len(body) - limit_bytes:,} bytes more; --body writes all of it"
            if len(body) > limit_bytes
            else ""
        )
        try:
            text = body[:limit_bytes].decode(errors="strict" if not cut else "ignore")
        except UnicodeDecodeError:
            return body[: limit_bytes // 4].hex(" ", 2) + cut
        if cut:
            return text + cut
        try:
            return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text


def _broker_reason(deaths: Any) -> str:
    """The broker's own words, where it was the broker that dead-lettered the message."""
    try:
        return f"the broker dead-lettered it: {deaths[0]['reason']}"
    except (TypeError, KeyError, IndexError):
        return "no reason is known: somebody else put it here"
