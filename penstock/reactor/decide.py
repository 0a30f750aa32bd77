"""What becomes of a delivery: an outcome in, a decision out. Pure; tried without a broker, a clock or dice.

| outcome     | budget left                         | otherwise   |
|-------------|-------------------------------------|-------------|
| Returned    | publish what it published, then ack |             |
| Raised      | retry after the policy's backoff    | dead letter |
| uncharged   | retry after a second                | the same    |
| lost amid   | retry after a second, 10 in a row   | as Raised   |
| AskedRetry  | retry after the asked delay         | dead letter |
| Died        | retry after the policy's backoff    | dead letter |
| Rejected    |                                     | dead letter |
| Unreadable  |                                     | dead letter |

"Uncharged" is a `Raised` that is not the message's fault; "lost amid" is one whose connection to the database was lost in
its hands. That is a server that restarts, or the message itself, which would come back for ever. A retry and a dead letter are publishes that are confirmed before the ack: where loss and duplication compete,
duplication wins. What is decided of a delivery before it runs, because it may have ended a whole service, is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final, assert_never

from msgspec.structs import replace

from penstock.app.handlers import AnyHandler
from penstock.app.messages import History, Outgoing
from penstock.app.outcomes import (
    AskedRetry,
    Died,
    Failure,
    Outcome,
    Raised,
    Rejected,
    Returned,
    Unreadable,
)
from penstock.buses.contract import Delivery
from penstock.reactor.deadletter import again, dead_letter, inbound_headers
from penstock.reactor.suspicion import SUSPECT_DELIVERIES

#: Wait before a run that is not charged, seconds: the database or the bus is on its way back.
UNCHARGED_DELAY_S: Final = 1.0
#: Runs in a row that may lose their connection to the database amid their work and are not charged; those after them are.
MOST_UNCHARGED_LOSSES: Final = 10


class Verdict(Enum):
    """What became of a delivery, for logs and counts."""

    ACKED = "acked"
    RETRIED = "retried"
    DEAD = "dead lettered"
    HANDED_BACK = "handed back"
    COUNTED = "start counted"
    """It goes to the end of its queue, and the copy says that it was handed out."""


class Cause(Enum):
    """Why a delivery was given up, in a word; its reason has the details."""

    REJECTED = "rejected"
    UNREADABLE = "unreadable"
    ATTEMPTS = "attempts"
    CRASHES = "crashes"


@dataclass(frozen=True, slots=True)
class Decision:
    """Publish these, wait for their confirms, then ack."""

    verdict: Verdict
    publish: tuple[Outgoing, ...] = ()
    reason: str = ""
    attempts: int = 0
    """Failed runs so far, this one included."""
    has_twin: bool = False
    """A message with the same id, body and history may come: a retry that is not charged, a dead letter replayed."""
    cause: Cause | None = None
    """Of a dead letter."""


ACK: Final = Decision(Verdict.ACKED)


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides for all handlers of a reactor; `random` is the source of the jitter."""

    crash_attempts: int
    random: Random

    def decide(  # noqa: PLR0911 - one line of the table each
        self, outcome: Outcome, delivery: Delivery, handler: AnyHandler, *, now_s: float
    ) -> Decision:
        """The decision for one outcome; `now_s` is Unix time."""
        history = delivery.history
        case = _Case(delivery, handler, now_s)
        match outcome:
            case Returned(published=()):
                return ACK
            case Returned(published=published):
                return Decision(Verdict.ACKED, published)
            case Rejected(reason=reason):
                return case.dead(Cause.REJECTED, history, f"rejected by the handler: {reason}", None)
            case Unreadable(reason=reason, failure=failure):
                return case.dead(Cause.UNREADABLE, history, reason, failure)
            case AskedRetry(delay_s=delay_s, reason=reason):
                return self._after_failure(case, history, f"retry asked for: {reason}", None, delay_s)
            case Raised(failure=failure, charged=True):
                return self._after_failure(
                    case, history, f"the handler raised {failure.type}: {failure.text}", failure, None
                )
            case Raised(failure=failure):
                known = replace(history, commit_unknown=history.commit_unknown or outcome.commit_unknown)
                if outcome.lost_amid:
                    return self._after_loss(case, known, failure)
                return case.retry(known, UNCHARGED_DELAY_S, f"not its fault: {failure.type}: {failure.text}")
            case Died():
                return self._after_death(case, outcome)
            case _:
                assert_never(outcome)

    def count_start(self, delivery: Delivery, handler: AnyHandler, *, now_s: float) -> Decision:
        """It came back, and its bus does not say how often: a copy does from now on."""
        history = replace(delivery.history, starts=delivery.history.starts + 1)
        return _Case(delivery, handler, now_s).counted(
            history, "it came back, and its queue does not count how often"
        )

    def set_apart(self, delivery: Delivery, handler: AnyHandler, *, now_s: float) -> Decision:
        """It may have ended a service: the copy runs alone. A dead letter once it ended too many while it did."""
        case = _Case(delivery, handler, now_s)
        history = delivery.history
        if history.alone:
            history = _failed(replace(history, crashes=history.crashes + 1), now_s)
            if history.crashes >= self.crash_attempts:
                reason = (
                    "the whole service ended while it ran alone; "
                    f"it has killed {history.crashes} workers or services"
                )
                return case.dead(Cause.CRASHES, history, reason, None)
        return case.counted(
            replace(history, alone=True), "it came back so often that it may have ended its service"
        )

    def set_free(self, delivery: Delivery, handler: AnyHandler, *, now_s: float) -> Decision:
        """It was to run alone and is handed back: a suspect still, but its coming back is not the end of a service."""
        starts = max(delivery.history.starts, SUSPECT_DELIVERIES)
        history = replace(delivery.history, alone=False, starts=starts)
        return _Case(delivery, handler, now_s).counted(history, "it was to run alone and is handed back")

    def _after_loss(self, case: _Case, history: History, failure: Failure) -> Decision:
        losses = history.losses + 1
        if losses <= MOST_UNCHARGED_LOSSES:
            words = f"its connection to the database was lost: {failure.type}: {failure.text}"
            return case.retry(replace(history, losses=losses), UNCHARGED_DELAY_S, f"not its fault: {words}")
        reason = (
            f"its connection to the database was lost amid its work {losses} times in a row, and counts as its failure after "
            f"{MOST_UNCHARGED_LOSSES}: look for a statement of the handler that ends its connection, and for a time limit of "
            "the server's that it outlasts inside its transaction (idle_in_transaction_session_timeout, wait_timeout); then "
            f"replay it. The last time: {failure.type}: {failure.text}"
        )
        return self._after_failure(case, history, reason, failure, None, losses=losses)

    def _after_failure(
        self,
        case: _Case,
        history: History,
        reason: str,
        failure: Failure | None,
        delay_s: float | None,
        *,
        losses: int = 0,
    ) -> Decision:
        history = _failed(replace(history, losses=losses), case.now_s)
        policy = case.handler.options.retry
        if history.attempts >= policy.attempts:
            tries = "1 attempt" if history.attempts == 1 else f"{history.attempts} attempts"
            return case.dead(Cause.ATTEMPTS, history, f"{reason} (after {tries})", failure)
        wait_s = policy.delay_s(history.attempts, self.random) if delay_s is None else delay_s
        return case.retry(history, wait_s, reason)

    def _after_death(self, case: _Case, died: Died) -> Decision:
        reason = f"the worker died while it ran ({died.how}; phase: {died.phase})"
        history = _failed(case.delivery.history, case.now_s)
        history = replace(
            history,
            losses=0,
            crashes=history.crashes + 1,
            commit_unknown=history.commit_unknown or died.commit_unknown,
        )
        if history.crashes >= self.crash_attempts:
            words = f"{reason}; it has killed {history.crashes} workers"
            return case.dead(Cause.CRASHES, history, words, None, died)
        wait_s = case.handler.options.retry.delay_s(history.crashes, self.random)
        return case.retry(history, wait_s, reason)


@dataclass(frozen=True, slots=True)
class _Case:
    delivery: Delivery
    handler: AnyHandler
    now_s: float

    def dead(
        self,
        cause: Cause,
        history: History,
        reason: str,
        failure: Failure | None,
        died: Died | None = None,
    ) -> Decision:
        attempts = max(1, history.attempts)
        letter = dead_letter(
            self.delivery,
            dead_queue=self.handler.queue.dead_name,
            handler=self.handler.name,
            reason=reason,
            failure=failure,
            died=died,
            history=replace(history, attempts=attempts),
            now_s=self.now_s,
        )
        return Decision(Verdict.DEAD, (letter,), reason, attempts, has_twin=True, cause=cause)

    def retry(self, history: History, delay_s: float, reason: str) -> Decision:
        # It ended, and its service did not: what was suspected is answered.
        history = replace(history, starts=0, alone=False)
        return self._comes_again(Verdict.RETRIED, history, delay_s, reason)

    def counted(self, history: History, reason: str) -> Decision:
        return self._comes_again(Verdict.COUNTED, history, 0.0, reason)

    def _comes_again(self, verdict: Verdict, history: History, delay_s: float, reason: str) -> Decision:
        headers, _ = inbound_headers(self.delivery)
        message = again(self.delivery, routing_key=self.delivery.queue, headers=headers)
        message = replace(message, history=history, delay_s=delay_s, priority=self.delivery.priority)
        has_twin = history == self.delivery.history
        return Decision(verdict, (message,), reason, history.attempts, has_twin)


def _failed(history: History, now_s: float) -> History:
    return replace(
        history, attempts=history.attempts + 1, first_failed_at_s=history.first_failed_at_s or now_s
    )
