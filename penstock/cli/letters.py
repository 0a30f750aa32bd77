"""A dead letter as a person sees it, and the message that it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from penstock.app import header_names
from penstock.app.messages import HeaderValue, Outgoing
from penstock.buses.contract import Delivery
from penstock.reactor import deadletter

#: What stands in for the id of a message that has none; the same every time.
_BODY_ID: Final = "sha256:"


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

    def own_headers(self) -> dict[str, HeaderValue]:
        """The headers that the message itself had."""
        headers = self.delivery.headers.items()
        return {
            name: value
            for name, value in headers
            if not name.lower().startswith(header_names.ON_A_DEAD_LETTER)
        }

    def replayed(self) -> Outgoing:
        """The message as it first came, for its queue: attempts begin again, its id stays."""
        key = self.says(header_names.QUEUE) or self.origin
        message = deadletter.again(self.delivery, routing_key=key, headers=self.own_headers())
        return replace(message, exchange=self.exchange)

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
