"""Of many events like each other the first is told, then one a minute."""

from __future__ import annotations

from penstock.channels.db.server.seldom import EVERY_S, Seldom


def test_an_hour_of_it_is_told_once_a_minute_and_nothing_is_lost_from_the_count() -> None:
    now_s = 0.0
    seldom = Seldom(lambda: now_s)
    told: list[int] = []
    for second in range(3600):
        now_s = float(second)
        if (left_out := seldom.left_out("lost")) is not None:
            told.append(left_out)
    assert told == [0, *[EVERY_S - 1] * 59]


def test_one_thing_does_not_silence_another() -> None:
    seldom = Seldom(lambda: 0.0)
    assert [seldom.left_out(what) for what in ("lost", "lost", "refused", "lost")] == [0, None, 0, None]
