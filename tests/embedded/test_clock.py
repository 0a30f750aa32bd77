"""Bus time: even when the wall clock jumps, never back after a reboot."""

import sqlite3
import time
from typing import Any

import pytest

from penstock.buses.embedded import clock as clock_module
from penstock.buses.embedded.clock import BusClock, steady_s

HOUR_S = 3600.0


class Time:
    """What the operating system would say."""

    def __init__(self) -> None:
        self.wall_s = 1_700_000_000.0
        self.steady_s = 5_000.0

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds

    def clock(self) -> BusClock:
        return BusClock(wall_s=lambda: self.wall_s, steady_s=lambda: self.steady_s)


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the name of this boot."""

    def set_boot(name: str) -> None:
        monkeypatch.setattr(clock_module, "this_boot", lambda *_: name)

    set_boot("first")
    return set_boot


@pytest.mark.parametrize("jump_s", [-2 * HOUR_S, 3 * HOUR_S])
@pytest.mark.usefixtures("boot")
def test_a_jump_of_the_wall_clock_is_not_seen(connection: sqlite3.Connection, jump_s: float) -> None:
    machine = Time()
    first = machine.clock()
    first.load(connection)
    before_ms = first.now_ms()

    machine.wall_s += jump_s
    machine.pass_(10)
    # A process that starts after the jump reads the same time as one that was there.
    second = machine.clock()
    second.load(connection)

    assert first.now_ms() == second.now_ms() == before_ms + 10_000


def test_after_a_reboot_it_follows_the_wall_clock(connection: sqlite3.Connection, boot: Any) -> None:
    machine = Time()
    machine.clock().load(connection)

    machine.wall_s += HOUR_S
    machine.steady_s = 3.0
    boot("second")
    clock = machine.clock()
    clock.load(connection)

    assert clock.now_ms() == int(machine.wall_s * 1000)
    assert connection.execute("SELECT boot FROM clocks").fetchall() == [("second",)]


def test_after_a_reboot_with_a_wrong_wall_clock_it_does_not_go_back(
    connection: sqlite3.Connection, boot: Any
) -> None:
    machine = Time()
    before = machine.clock()
    before.load(connection)
    machine.pass_(60)
    before.note(connection)

    machine.wall_s = 0.0  # a machine without a battery
    machine.steady_s = 3.0
    boot("second")
    clock = machine.clock()
    clock.load(connection)

    assert clock.now_ms() >= 1_700_000_060_000


def test_the_steady_clock_is_one_for_the_machine_and_moves() -> None:
    before_s = steady_s()
    while steady_s() == before_s:
        time.sleep(0)

    assert steady_s() > before_s
    assert clock_module.this_boot(0.0, 0.0) == clock_module.this_boot(1.0, 1.0)
