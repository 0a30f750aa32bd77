"""The page of metrics names every metric that there is, and no other."""

from __future__ import annotations

import re
import time

from penstock.buses.contract import BusStatistics
from penstock.health.exposition import CAUSES, OUTCOMES, PHASES, RETURNED, UNDELIVERABLE, Exposition, Seen
from penstock.health.loop_watch import LoopWatch
from penstock.reactor.figures import Figures, HandlerFigures
from penstock.reactor.tally import Tally
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "health.md").read_text(encoding="utf-8")


def exposed() -> set[str]:
    one = HandlerFigures("orders", "shop.store", Tally(), prefetch=16, is_consuming=True)
    figures = Figures(
        [one],
        0,
        {},
        0,
        {("db", "execute"): 1},
        {1: 1},
        is_connected=True,
        bus=BusStatistics(reconnects={"consuming": 1}),
    )
    text, _ = Exposition("shop:app", LoopWatch(5.0)).write(
        Seen(figures, time.time(), (), has_database=True), ""
    )
    return set(re.findall(r"^# TYPE (penstock\w+)", text.decode(), re.MULTILINE))


def test_every_metric_is_explained_and_every_explained_one_exists() -> None:
    assert set(re.findall(r"^\| `(penstock\w+)` \|", PAGE, re.MULTILINE)) == exposed()


def test_alerts_are_about_metrics_that_exist() -> None:
    (alerts,) = re.findall(r"```yaml\ngroups:(.*?)```", PAGE, re.DOTALL)
    named = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bpenstock_\w+", alerts)}
    assert named
    assert named <= exposed()


def test_every_phase_outcome_and_reason_is_named() -> None:
    words = (*PHASES, *OUTCOMES.values(), RETURNED, *CAUSES, *UNDELIVERABLE)
    assert [word for word in words if f"`{word}`" not in PAGE] == []
