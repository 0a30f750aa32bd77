"""Backoff: a pure function of attempt, policy and a source of chance."""

from random import Random

import pytest

from penstock import Backoff

POLICIES = [
    Backoff(),
    Backoff(attempts=50, first_s=0.1, factor=3),
    Backoff(first_s=0),
    Backoff(factor=1),
    Backoff(cap_s=0),
]


def test_the_ceiling_doubles_from_the_first_wait_to_the_cap() -> None:
    policy = Backoff(first_s=1, factor=2, cap_s=10)

    assert [policy.ceiling_s(attempts) for attempts in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_no_wait_is_negative_or_longer_than_its_ceiling_or_the_cap(policy: Backoff) -> None:
    random = Random(1)
    for attempts in [*range(1, 60), 1_000, 10**9]:
        ceiling_s = policy.ceiling_s(attempts)
        assert 0 <= ceiling_s <= policy.cap_s
        assert all(0 <= policy.delay_s(attempts, random) <= ceiling_s for _ in range(20))


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_the_ceiling_never_falls(policy: Backoff) -> None:
    ceilings = [policy.ceiling_s(attempts) for attempts in range(1, 300)]
    assert ceilings == sorted(ceilings)


def test_the_same_chance_gives_the_same_wait() -> None:
    policy = Backoff()
    assert policy.delay_s(3, Random(7)) == policy.delay_s(3, Random(7))


def test_the_jitter_is_full_so_that_a_herd_spreads_over_the_whole_wait() -> None:
    random = Random(1)
    waits_s = [Backoff(first_s=8).delay_s(1, random) for _ in range(4000)]
    by_second = [sum(second <= wait < second + 1 for wait in waits_s) for second in range(8)]
    assert min(by_second) > 400
    assert max(by_second) < 600


@pytest.mark.parametrize("attempts", [1, 2, 5, 1000])
def test_backoff_grows_to_its_cap_and_never_beyond(attempts: int) -> None:
    policy = Backoff(first_s=0.5, factor=3.0, cap_s=20.0)

    drawn = [policy.delay_s(attempts, Random(seed)) for seed in range(200)]

    assert policy.ceiling_s(attempts) == min(20.0, 0.5 * 3.0 ** min(attempts - 1, 100))
    assert all(0 <= wait_s <= policy.ceiling_s(attempts) for wait_s in drawn)
    assert max(drawn) > policy.ceiling_s(attempts) / 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attempts": 0}, "at least 1"),
        ({"first_s": -1}, "first_s is 0 or more"),
        ({"cap_s": -1}, "cap_s from 0"),
        ({"cap_s": 10**7}, "12 days"),
        ({"cap_s": float("inf")}, "12 days"),
        ({"factor": 0.5}, "factor 1 or more"),
        ({"first_s": float("nan")}, "first_s is 0 or more"),
        ({"factor": float("nan")}, "factor 1 or more"),
    ],
)
def test_numbers_that_cannot_work_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Backoff(**options)  # type: ignore[arg-type]
