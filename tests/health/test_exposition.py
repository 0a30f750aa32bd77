"""The figures as text: buckets that add up, and what a loop that never answered looks like."""

from __future__ import annotations

import time

from penstock.buses.contract import BusStatistics
from penstock.health.exposition import Exposition, Seen
from penstock.health.loop_watch import LoopWatch
from penstock.reactor.figures import Figures, HandlerFigures
from penstock.reactor.tally import Tally
from tests.health.watched import samples


def shown(seen: Seen, accept: str = "") -> tuple[dict[str, float], str]:
    text, content_type = Exposition("shop:app", LoopWatch(5.0)).write(seen, accept)
    return samples(text.decode()), content_type


def test_buckets_are_cumulative_and_sizes_are_weighted() -> None:
    tally = Tally(delivered=3)
    for value in (0.001, 0.3, 5000.0):
        tally.run_time.observe(value)
    one = HandlerFigures("orders", 'shop."store"\n', tally, prefetch=16, is_consuming=True)
    figures = Figures(
        [one], 0, {"busy in a new way": 1}, 0, {}, {1: 3, 5: 2}, is_connected=True, bus=BusStatistics()
    )

    found, content_type = shown(Seen(figures, time.time(), ()))

    assert content_type.startswith("text/plain")
    buckets = {
        name.partition('le="')[2].split('"')[0]: value
        for name, value in found.items()
        if name.startswith("penstock_handler_seconds_bucket")
    }
    assert (buckets["0.001"], buckets["0.1"], buckets["0.5"], buckets["1800.0"], buckets["+Inf"]) == (
        1,
        1,
        2,
        2,
        3,
    )
    assert found["penstock_group_commit_statements_sum"] == 13
    assert found['penstock_group_commit_statements_bucket{le="4.0"}'] == 3
    assert found['penstock_group_commit_statements_bucket{le="8.0"}'] == 5
    # A phase that nobody thought of is shown rather than lost.
    assert found['penstock_slots{phase="busy in a new way"}'] == 1


def test_before_the_loop_has_answered_there_is_its_health_and_nothing_else() -> None:
    found, _ = shown(Seen(None, time.time(), ("the loop does not answer",), "it refuses", has_database=True))

    assert (found["penstock_ready"], found["penstock_database_answers"]) == (0, 0)
    assert not [name for name in found if "deliveries" in name]


def test_whoever_asks_for_openmetrics_gets_it() -> None:
    exposition = Exposition("shop:app", LoopWatch(5.0))
    text, content_type = exposition.write(Seen(None, 0.0, ()), "application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith(b"# EOF\n")
