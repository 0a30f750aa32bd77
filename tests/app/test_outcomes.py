"""What a handler says by raising, and how an exception becomes data that always arrives."""

import msgspec
import pytest

from penstock import Reject, Retry
from penstock.app.failure import MAX_TEXT_CHARS, MAX_TRACEBACK_CHARS, failure_of
from penstock.app.messages import Outgoing
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


def test_retry_and_reject_carry_what_the_handler_said() -> None:
    retry = Retry("the warehouse sleeps", delay=2.5)
    assert (retry.reason, retry.delay, str(retry)) == ("the warehouse sleeps", 2.5, "the warehouse sleeps")
    assert Retry().delay is None
    assert Retry(delay=0).delay == 0
    assert Reject("sold out").reason == str(Reject("sold out")) == "sold out"


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 10**7])
def test_a_delay_that_no_bus_keeps_is_refused_in_the_handler(delay: float) -> None:
    with pytest.raises(ValueError, match=rf"Retry\(delay={delay}\): .*12 days"):
        Retry(delay=delay)


@pytest.mark.parametrize(
    "outcome",
    [
        DONE,
        Returned((Outgoing("q", b"\xff", headers={"b": b"\xff", "f": 1.5}, delay_s=1.5),)),
        Raised(Failure("ValueError", "text", "trace"), charged=False),
        AskedRetry(None, "reason"),
        AskedRetry(2.5, "reason"),
        Rejected("reason"),
        Unreadable("reason", Failure("ValueError", "text")),
        Unreadable("reason"),
        Raised(Failure("ValueError", "text", "trace"), charged=False, commit_unknown=True),
        Raised(Failure("ValueError", "text", "trace"), charged=False, lost_amid=True),
        Died("signal 9, SIGKILL", "handler"),
        Died("signal 9, SIGKILL", "committing", commit_unknown=True, peak_bytes=2**40, stack="File…"),
    ],
    ids=repr,
)
def test_every_outcome_crosses_the_process_border_unchanged(outcome: Outcome) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(outcome), type=Outcome) == outcome


class AuthorsError(Exception):
    pass


def raised(error: BaseException) -> Failure:
    try:
        raise error  # noqa: TRY301 - for its traceback
    except BaseException as caught:  # noqa: BLE001 - any
        return failure_of(caught)


def test_a_failure_names_type_text_and_place() -> None:
    failure = raised(AuthorsError("sold out"))

    assert (failure.type, failure.text) == (f"{__name__}.AuthorsError", "sold out")
    assert failure.traceback.endswith("AuthorsError: sold out\n")
    assert "in raised" in failure.traceback
    assert (raised(SystemExit(3)).type, raised(SystemExit(3)).text) == ("SystemExit", "3")


def test_a_long_failure_keeps_the_head_of_its_text_and_the_end_of_its_traceback() -> None:
    failure = raised(ValueError("head" + "x" * 1_000_000 + "end"))

    assert len(failure.text) == MAX_TEXT_CHARS
    assert failure.text.startswith("headxxx")
    assert len(failure.traceback) == MAX_TRACEBACK_CHARS
    assert failure.traceback.endswith("xxend\n")


def test_a_text_that_cannot_be_written_as_utf_8_arrives_all_the_same() -> None:
    failure = raised(ValueError("\ud800"))

    assert failure.text == "\\ud800"
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(failure), type=Failure) == failure


class Unspeakable(Exception):  # noqa: N818 - it has no better name
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Deadly(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise SystemExit(1)


@pytest.mark.parametrize("kind", [Unspeakable, Deadly])
def test_an_exception_without_words_costs_nobody_the_outcome(kind: type[Exception]) -> None:
    failure = raised(kind())

    assert failure.type == f"{__name__}.{kind.__name__}"
    assert "cannot be read" in failure.text
