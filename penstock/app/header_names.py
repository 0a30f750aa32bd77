"""Names of the headers that Penstock writes on a message, and of those that a broker writes beside them."""

from __future__ import annotations

from typing import Final

#: Every name of ours begins so.
PREFIX: Final = "x-penstock-"

REASON: Final = "x-penstock-reason"
EXCEPTION: Final = "x-penstock-exception"
TEXT: Final = "x-penstock-exception-text"
TRACEBACK: Final = "x-penstock-traceback"
ATTEMPTS: Final = "x-penstock-attempts"
CRASHES: Final = "x-penstock-crashes"
FIRST_AT: Final = "x-penstock-first-failed-at"
LAST_AT: Final = "x-penstock-last-failed-at"
QUEUE: Final = "x-penstock-queue"
#: On what could not be routed: the exchange that it was published to, with the routing key in `QUEUE`.
EXCHANGE: Final = "x-penstock-exchange"
HANDLER: Final = "x-penstock-handler"
CUT: Final = "x-penstock-headers-dropped"
#: The four of a message that killed its worker: the last time, when it did so more than once.
CRASH: Final = "x-penstock-crash"
CRASH_PHASE: Final = "x-penstock-crash-phase"
CRASH_PEAK: Final = "x-penstock-crash-peak-memory"
CRASH_STACK: Final = "x-penstock-crash-stack"
COMMIT_UNKNOWN: Final = "x-penstock-commit-unknown"
#: On what was a dead letter before: how often, and as JSON how it ended each time.
REPLAYS: Final = "x-penstock-replays"
PAST: Final = "x-penstock-history"

#: RabbitMQ's account of how a message became a dead letter of its own.
DEATHS: Final = "x-death"

#: No publisher's header begins so.
RESERVED: Final = (PREFIX, DEATHS, "x-delivery-count")
#: Headers that Penstock or a broker put on a dead letter; the message that goes back has none of them.
ON_A_DEAD_LETTER: Final = (*RESERVED, "x-first-death-", "x-last-death-")
