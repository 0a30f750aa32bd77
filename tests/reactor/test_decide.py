"""What becomes of each outcome, decided without a broker."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from penstock.app import header_names
from penstock.app.backoff import Backoff
from penstock.app.messages import History, Outgoing
from penstock.app.outcomes import (
    DONE,
    AskedRetry,
    Died,
    Failure,
    Outcome,
    Raised,
    Rejected,
    Returned,
    Unreadable,
)
from penstock.reactor.decide import ACK, Decision, Judge, Verdict
from tests.reactor.deliveries import delivery, handler

NOW_S = 1_700_000_000.0
JUDGE = Judge(crash_attempts=3, random=Random(1))
FAILURE = Failure("ValueError", "no such order", "Traceback…")


def decide(outcome: Outcome, *, policy: Backoff | None = None, **options: Any) -> Decision:
    return JUDGE.decide(
        outcome, delivery(**options), handler(retry=policy or Backoff(attempts=3)), now_s=NOW_S
    )


def test_a_bare_return_is_acked() -> None:
    assert decide(DONE) is ACK


def test_what_a_handler_published_is_published_before_the_ack() -> None:
    message = Outgoing("next", b"1")

    decision = decide(Returned((message,)))

    assert decision.verdict is Verdict.ACKED
    assert decision.publish == (message,)


def test_a_failure_is_retried_on_its_own_queue_with_its_history() -> None:
    decision = decide(Raised(FAILURE), body=b"body", headers={"tenant": "a"}, correlation_id="c")

    (again,) = decision.publish
    assert decision.verdict is Verdict.RETRIED
    assert (again.routing_key, again.body, again.message_id, again.correlation_id) == (
        "orders",
        b"body",
        "m1",
        "c",
    )
    assert again.headers == {"tenant": "a"}
    assert again.history == History(1, 0, NOW_S)
    assert 0 <= again.delay_s <= 1.0


def test_the_last_attempt_becomes_a_dead_letter_with_the_evidence() -> None:
    decision = decide(Raised(FAILURE), history=History(2, 0, NOW_S - 60))

    (letter,) = decision.publish
    assert decision.verdict is Verdict.DEAD
    assert letter.routing_key == "orders.dead"
    assert (
        letter.headers[header_names.REASON]
        == "the handler raised ValueError: no such order (after 3 attempts)"
    )
    assert letter.headers[header_names.EXCEPTION] == "ValueError"
    assert letter.headers[header_names.TRACEBACK] == "Traceback…"
    assert letter.headers[header_names.ATTEMPTS] == 3
    assert letter.headers[header_names.QUEUE] == "orders"
    assert letter.headers[header_names.FIRST_AT] == "2023-11-14T22:12:20.000+00:00"
    assert letter.headers[header_names.LAST_AT] == "2023-11-14T22:13:20.000+00:00"


def test_what_was_not_the_messages_fault_is_not_charged() -> None:
    decision = decide(Raised(FAILURE, charged=False), history=History(2, 0, NOW_S))

    assert decision.verdict is Verdict.RETRIED
    assert decision.publish[0].history == History(2, 0, NOW_S)


LOST = Raised(Failure("OperationalError", "server closed the connection"), charged=False, lost_amid=True)


def ends_of(outcome: Outcome, *, most: int, attempts: int = 2) -> list[Decision]:
    """What becomes of a message that ends so again and again, until it is a dead letter."""
    found: list[Decision] = []
    history: History | None = History()
    while history is not None and len(found) < most:
        found.append(decide(outcome, policy=Backoff(attempts=attempts), history=history))
        history = found[-1].publish[0].history
    return found


def test_a_message_that_loses_its_connection_each_time_is_charged_from_the_eleventh_run_and_ends() -> None:
    ends = ends_of(LOST, most=20)

    assert [end.verdict for end in ends] == [Verdict.RETRIED] * 11 + [Verdict.DEAD]
    assert [end.attempts for end in ends] == [0] * 10 + [1, 2]
    assert {end.publish[0].delay_s for end in ends[:10]} == {1.0}
    assert "not its fault" in ends[9].reason
    (letter,) = ends[-1].publish
    reason = letter.headers[header_names.REASON]
    assert isinstance(reason, str)
    for words in (
        "lost amid its work 12 times in a row",
        "counts as its failure after 10",
        "idle_in_transaction_session_timeout",
        "server closed the connection (after 2 attempts)",
    ):
        assert words in reason
    assert letter.headers[header_names.EXCEPTION] == "OperationalError"


def test_a_fault_of_nobodys_that_is_no_lost_connection_comes_again_however_often() -> None:
    ends = ends_of(Raised(FAILURE, charged=False), most=50)

    assert {end.verdict for end in ends} == {Verdict.RETRIED}


@pytest.mark.parametrize(
    ("outcome", "losses"),
    [
        (Raised(FAILURE), 0),
        (AskedRetry(0.0, "busy"), 0),
        (Died("exit code 1", "handler"), 0),
        # It could not run: the next one is in a row with those before.
        (Raised(FAILURE, charged=False), 7),
    ],
)
def test_a_run_that_ends_otherwise_breaks_the_row_of_losses(outcome: Outcome, losses: int) -> None:
    (again,) = decide(outcome, history=History(losses=7)).publish

    assert again.history is not None
    assert again.history.losses == losses


def test_a_loss_amid_a_commit_that_is_charged_leaves_the_doubt() -> None:
    doubtful = Raised(FAILURE, charged=False, commit_unknown=True, lost_amid=True)

    (again,) = decide(doubtful, history=History(losses=10)).publish

    assert again.history == History(1, 0, NOW_S, commit_unknown=True, losses=11)


def test_a_handlers_own_delay_is_kept() -> None:
    assert decide(AskedRetry(12.5, "busy")).publish[0].delay_s == 12.5


def test_a_retry_that_is_asked_for_counts_as_an_attempt() -> None:
    assert decide(AskedRetry(0.0, "busy"), history=History(2, 0, NOW_S)).verdict is Verdict.DEAD


@pytest.mark.parametrize("outcome", [Rejected("closed"), Unreadable("not JSON")])
def test_what_another_run_would_not_change_is_a_dead_letter_at_once(outcome: Outcome) -> None:
    decision = decide(outcome)

    assert decision.verdict is Verdict.DEAD
    assert decision.reason.endswith(("closed", "not JSON"))


def test_a_message_that_kills_workers_has_its_own_budget() -> None:
    many = Backoff(attempts=100)
    first = decide(Died("signal 11, SIGSEGV", "handler"), policy=many)
    third = decide(Died("signal 11, SIGSEGV", "handler"), policy=many, history=History(2, 2, NOW_S))

    assert first.verdict is Verdict.RETRIED
    assert first.publish[0].history == History(1, 1, NOW_S)
    assert third.verdict is Verdict.DEAD
    assert "SIGSEGV" in third.reason
    assert "killed 3 workers" in third.reason


def test_the_dead_letter_of_a_message_that_kills_workers_has_the_evidence_of_the_last_death() -> None:
    died = Died("signal 11, SIGSEGV", "committing", True, 3 * 2**20, "Current thread…")

    (letter,) = decide(died, history=History(2, 2, NOW_S, replays=1, past="[]")).publish

    assert letter.headers[header_names.CRASH] == "signal 11, SIGSEGV"
    assert letter.headers[header_names.CRASH_PHASE] == "committing"
    assert letter.headers[header_names.CRASH_PEAK] == "3.0 MiB"
    assert letter.headers[header_names.CRASH_STACK] == "Current thread…"
    assert letter.headers[header_names.COMMIT_UNKNOWN] is True
    assert (letter.headers[header_names.REPLAYS], letter.headers[header_names.PAST]) == (1, "[]")


def test_a_doubt_about_a_commit_stays_with_the_message_whatever_comes_next() -> None:
    killed = decide(Died("signal 9, SIGKILL", "committing", commit_unknown=True))
    lost = decide(Raised(FAILURE, charged=False, commit_unknown=True))
    doubtful = History(1, 1, NOW_S, commit_unknown=True)

    for decision in (
        killed,
        lost,
        decide(Raised(FAILURE), history=doubtful),
        decide(Raised(FAILURE, charged=False), history=doubtful),
        decide(AskedRetry(0.0, "busy"), history=doubtful),
        decide(Died("exit code 1", "handler"), history=doubtful),
    ):
        (again,) = decision.publish
        assert again.history is not None
        assert again.history.commit_unknown


def test_headers_of_a_dead_letter_stay_below_the_frame_limit() -> None:
    large = Failure("E" * 5000, "t" * 100_000, "é" * 100_000)

    (letter,) = decide(
        Raised(large), policy=Backoff(attempts=1), headers={f"h{n}": "x" * 100 for n in range(1200)}
    ).publish

    assert sum(len(str(k)) + len(str(v).encode()) for k, v in letter.headers.items()) <= 32 * 1024
    assert letter.headers[header_names.TRACEBACK].endswith("é")
    assert letter.headers[header_names.CUT] == "144090 bytes of the message's own headers were left out"


@pytest.mark.parametrize(
    ("outcome", "has_twin"),
    [
        (Returned(()), False),
        (AskedRetry(1.0, "later"), False),
        (Died("signal 9", "handler"), False),
        # These may come again just as they were.
        (Raised(FAILURE, charged=False), True),
        (Rejected("closed"), True),
    ],
)
def test_what_may_come_again_just_as_it_was_is_told(outcome: Outcome, has_twin: bool) -> None:
    assert decide(outcome).has_twin == has_twin


def test_a_start_is_counted_on_a_copy_where_the_bus_does_not_count() -> None:
    decision = JUDGE.count_start(delivery(priority=5, headers={"tenant": "a"}), handler(), now_s=NOW_S)

    (copy,) = decision.publish
    assert decision.verdict is Verdict.COUNTED
    assert (copy.routing_key, copy.body, copy.message_id, copy.priority, copy.delay_s) == (
        "orders",
        b"{}",
        "m1",
        5,
        0.0,
    )
    assert copy.headers == {"tenant": "a"}
    assert copy.history == History(starts=1)


def test_only_a_death_while_it_ran_alone_counts_and_the_third_one_parks_it() -> None:
    histories = [History(starts=3)]
    for _ in range(3):
        decision = JUDGE.set_apart(delivery(redelivered=True, history=histories[-1]), handler(), now_s=NOW_S)
        (copy,) = decision.publish
        assert copy.history is not None
        histories.append(copy.history)
    last = JUDGE.set_apart(delivery(redelivered=True, history=histories[-1]), handler(), now_s=NOW_S)

    assert histories[1:] == [
        History(starts=3, alone=True),
        History(1, 1, NOW_S, starts=3, alone=True),
        History(2, 2, NOW_S, starts=3, alone=True),
    ]
    assert last.verdict is Verdict.DEAD
    (letter,) = last.publish
    assert letter.routing_key == "orders.dead"
    assert letter.headers[header_names.CRASHES] == 3
    assert "the whole service ended while it ran alone" in letter.headers[header_names.REASON]


def test_a_run_that_ends_otherwise_answers_the_suspicion() -> None:
    decision = decide(Raised(FAILURE), history=History(1, 1, NOW_S, starts=2, alone=True))

    assert decision.publish[0].history == History(2, 1, NOW_S)


def test_what_was_to_run_alone_and_is_handed_back_stays_a_suspect_without_the_mark() -> None:
    decision = JUDGE.set_free(delivery(history=History(1, 1, NOW_S, alone=True)), handler(), now_s=NOW_S)

    assert decision.publish[0].history == History(1, 1, NOW_S, starts=3)
