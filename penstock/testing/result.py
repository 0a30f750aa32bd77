"""What became of a message that was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from penstock.app.messages import HeaderValue, Outgoing
from penstock.app.outcomes import Outcome, Raised
from penstock.app.payloads import JSON, TEXT
from penstock.errors import PayloadError
from penstock.reactor.decide import Decision, Verdict


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that a handler published, or that lies in a queue."""

    message: Outgoing

    @property
    def payload(self) -> Any:
        """What its reader would decode: a value from JSON, `str` from text, else `bytes`."""
        if self.message.content_type == JSON:
            return json.loads(self.message.body)
        return self.message.body.decode() if self.message.content_type == TEXT else self.message.body

    @property
    def queue(self) -> str | None:
        """The queue's name; None for a message to an exchange."""
        return None if self.message.exchange else self.message.routing_key

    @property
    def id(self) -> str:
        """The message's id."""
        return self.message.message_id

    @property
    def headers(self) -> Mapping[str, HeaderValue]:
        """Its headers; those of a dead letter say why (`x-penstock-reason`)."""
        return self.message.headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one message."""

    outcome: Outcome
    """How the handling ended, as `penstock.app.outcomes` names it."""
    decision: Decision
    """What the service would have done."""
    published: tuple[Sent, ...] = ()
    """What left after the commit."""
    published_now: tuple[Sent, ...] = ()
    """What `publish_now` sent, whatever came after it."""
    error: BaseException | None = None
    """The exception that the handler raised."""

    @property
    def verdict(self) -> str:
        """In words: acked, retried, or dead lettered."""
        return self.decision.verdict.value

    @property
    def reason(self) -> str:
        """Why it was retried or dead lettered; empty when it was acked."""
        return self.decision.reason

    @property
    def retry_after_s(self) -> float | None:
        """Seconds until the message would come again; None when it would not."""
        return self.decision.publish[0].delay_s if self.decision.verdict is Verdict.RETRIED else None

    @property
    def dead_letter(self) -> Sent | None:
        """What would lie in the dead-letter queue."""
        return Sent(self.decision.publish[0]) if self.decision.verdict is Verdict.DEAD else None

    def raise_for_failure(self) -> Self:
        """Itself, when the message was acked.

        Raises what the handler raised (`Retry` and `Reject` too), `PayloadError` when the body could not be read,
        `AssertionError` with the traceback as text when the commit failed.
        """
        if self.decision.verdict is Verdict.ACKED:
            return self
        if self.error is not None:
            raise self.error
        if not isinstance(self.outcome, Raised):
            raise PayloadError(self.reason)
        raise AssertionError(f"{self.reason}\n{self.outcome.failure.traceback}")
