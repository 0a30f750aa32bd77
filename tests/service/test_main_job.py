"""Messages in, handlers in worker processes, rows in the database: on both buses."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from msgspec.structs import replace

from penstock.app.application import load_app
from penstock.app.messages import History, Outgoing
from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from penstock.reactor.service import Reactor, Stop
from penstock.reactor.slot_state import SlotState
from tests.channels.conftest import until
from tests.service.processes import parent_of
from tests.service.running import ADDRESS, DEADLINE_S, make_database, running, settings_for


async def test_every_message_has_its_row_and_what_it_published_is_handled(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.store", "t.stored")) as service:
        await service.publish("t.store", *({"id": n} for n in range(200)))

        await service.settled(400)

    assert sorted(service.effects("store")) == sorted((f"m{n}", 1) for n in range(200))
    assert sorted(int(message_id) for message_id, _ in service.effects("stored")) == list(range(200))


async def test_a_message_that_cannot_be_read_is_a_dead_letter_with_its_reason(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.only",), limits={"body_bytes": 1000}) as service:
        await service.publish("t.only", b"{not json", {"id": "x"}, b'"' + b"x" * 2000 + b'"', {"id": 1})

        statistics = await service.settled(4)
        letters = await service.dead("t.only")

    assert (statistics.acked, statistics.dead, statistics.retried) == (1, 3, 0)
    reasons = sorted(str(letter["x-penstock-reason"]) for letter in letters)
    assert reasons[0].startswith("the body has 2002 bytes, limits.body_bytes is 1000")
    assert reasons[1].startswith("the body is not valid JSON")
    assert "id: Input should be a valid integer" in reasons[2]
    assert service.effects("only") == [("m3", 1)]


@pytest.mark.parametrize("kind", ["value", "exit", "interrupt", "generator", "two", "retry"])
async def test_a_handler_that_raises_is_tried_again_and_leaves_nothing_behind(
    bus_url: str, tmp_path: Path, kind: str
) -> None:
    async with running(bus_url, tmp_path, only=("t.fails", "t.stored")) as service:
        await service.publish("t.fails", {"kind": kind, "times": 1})

        statistics = await service.settled(2)

    assert (statistics.retried, statistics.worker_deaths) == (1, 0)
    assert service.effects("fails") == [("m0", 2)]


async def test_attempts_end_in_the_dead_letter_queue(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.fails",)) as service:
        await service.publish("t.fails", {"kind": "value"}, {"kind": "reject"})

        statistics = await service.settled(2)
        letters = await service.dead("t.fails")

    by_attempts = {letter["x-penstock-attempts"]: letter for letter in letters}
    assert statistics.retried == 2
    assert by_attempts[3]["x-penstock-exception"] == "ValueError"
    assert "no such order" in str(by_attempts[3]["x-penstock-traceback"])
    assert by_attempts[1]["x-penstock-reason"] == "rejected by the handler: closed"
    assert service.effects("fails") == []


async def test_a_worker_that_dies_costs_its_message_one_attempt_and_nobody_else(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.dies", "t.only")) as service:
        await service.publish("t.only", *({"id": n} for n in range(100)), ids=[f"o{n}" for n in range(100)])
        await service.publish("t.dies", *({"how": how, "times": 1} for how in ("segfault", "exit", "kill")))
        await service.publish("t.only", *({"id": n} for n in range(100)), ids=[f"p{n}" for n in range(100)])

        statistics = await service.settled(203)

    assert (statistics.worker_deaths, statistics.dead) == (3, 0)
    assert sorted(service.effects("dies")) == [("m0", 2), ("m1", 2), ("m2", 2)]
    assert len(service.effects("only")) == 200
    assert {attempt for _, attempt in service.effects("only")} == {1}


async def test_a_message_that_always_kills_its_worker_ends_as_a_dead_letter(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.dies",)) as service:
        await service.publish("t.dies", {"how": "segfault"})

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.dies")

    assert statistics.worker_deaths == 3
    assert "SIGSEGV" in str(letter["x-penstock-reason"])
    assert letter["x-penstock-crashes"] == 3


@pytest.mark.parametrize("how", ["python", "c", "swallows"])
async def test_a_deadline_holds(bus_url: str, tmp_path: Path, how: str) -> None:
    async with running(bus_url, tmp_path, only=("t.deadline",)) as service:
        await service.publish("t.deadline", {"how": how})

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.deadline")

    assert statistics.dead == 1
    assert statistics.worker_deaths == (0 if how == "python" else 3)
    assert ("DeadlineExceeded" if how == "python" else "after its deadline of 0.3 s") in str(
        letter["x-penstock-reason"]
    )


async def test_publish_now_tells_the_handler_that_nobody_is_there(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.now", "t.answers")) as service:
        await service.publish("t.now", {"to": "t.answers"}, {"to": "t.nobody"})

        statistics = await service.until(lambda s: s.acked == 2 and s.retried >= 1)
        told = await service.line("message is retried")

    assert statistics.dead == 0
    assert "Unroutable" in told["reason"]
    assert "t.nobody" in told["reason"]


async def test_an_unroutable_message_of_a_handler_becomes_a_dead_letter_itself(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.store",)) as service:
        await service.publish("t.store", {"id": 5})

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.store")

    assert (statistics.acked, statistics.dead) == (1, 0)
    assert "unroutable" in str(letter["x-penstock-reason"])
    assert service.effects("store") == [("m0", 1)]


async def test_a_transaction_over_the_channel_is_undone_when_its_worker_dies(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.channel",)) as service:
        await service.publish("t.channel", {"die": True}, {})

        await service.settled(2)

    assert service.effects("channel") == [("m1", 1)]


async def test_writing_one_file_both_ways_is_refused_at_once(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.both",)) as service:
        await service.publish("t.both", {})

        await service.until(lambda s: s.retried >= 1, deadline_s=5)
        told = await service.line("message is retried")

    assert "ConnectionMisused" in told["reason"]
    assert service.effects("both") == []


async def test_a_slow_message_at_the_head_does_not_stop_the_others(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.idles", "t.only")) as service:
        await service.publish("t.only", {"id": 0})
        await service.settled(1)
        await service.publish("t.idles", {"s": 2.0}, ids=["slow"])
        await service.line("begun")
        await service.publish("t.only", *({"id": n} for n in range(500)))

        await service.until(lambda s: s.acked == 501)
        still_out = service.reactor.statistics().unsettled
        await service.settled(502)

    assert still_out == 1


async def test_what_a_handler_tells_costs_nothing_whatever_it_is(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.prints",)) as service:
        await service.publish("t.prints", {"n": 2**70}, {"n": "a"})

        statistics = await service.settled(2)
        await service.line("logged", 2)

    assert (statistics.acked, statistics.retried, statistics.worker_deaths) == (2, 0, 0)
    assert {line["n"] for line in service.lines if line["event"] == "logged"} == {hex(2**70), "a"}
    assert {f"printed {2**70}", "printed a"} <= {line["event"] for line in service.lines}


async def test_a_worker_imports_no_bus(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.modules",)) as service:
        bus = open_bus(service.settings.bus)
        await bus.connect()
        await service.publish("t.modules", {})
        # Nobody consumes t.answers here: what was published is the unroutable dead letter.
        await service.settled(1)
        async with bus.hold("t.modules.dead", limit=1) as letters:
            (body,) = [letter.body async for letter in letters]
        await bus.aclose()

    assert b'"penstock.workers.entry"' in body
    for module in (b"aio_pika", b"aiormq", b"typer", b"penstock.reactor", b"penstock.buses"):
        assert b'"' + module + b'"' not in body


async def test_an_idle_worker_that_is_killed_comes_back(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.only",)) as service:
        before = service.reactor.worker_pids
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await service.publish("t.only", {"id": 1})

        await service.settled(1)

    assert service.effects("only") == [("m0", 1)]
    assert not set(service.reactor.worker_pids) & set(before)


async def test_a_killed_fork_server_takes_no_message_with_it(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.sleeps", "t.only")) as service:
        await service.publish("t.only", {"id": 0})
        await service.settled(1)
        (fork_server,) = {parent_of(pid) for pid in service.reactor.worker_pids}
        await service.publish("t.sleeps", {"s": 0.5}, {"s": 0.5}, ids=["s0", "s1"])
        await service.line("begun", 2)

        os.kill(fork_server, signal.SIGTERM)
        os.kill(fork_server, signal.SIGKILL)
        await service.publish("t.only", *({"id": n} for n in range(50)))
        statistics = await service.settled(53)

    assert (statistics.retried, statistics.dead) == (0, 0)
    assert sorted(service.effects("sleeps")) == [("s0", 1), ("s1", 1)]


async def test_slots_are_recycled_without_a_pause(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.only",), workers={"recycle_messages": 20}) as service:
        first = set(service.reactor.worker_pids)
        sent = 0
        # An old slot works until its successor is up, which takes a moment.
        while {row.pid for row in service.query("WHERE handler = 'only'")} <= first and sent < 20_000:
            await service.publish("t.only", *({"id": sent + n} for n in range(100)))
            sent += 100
            await service.settled(sent)

    statistics = service.reactor.statistics()
    assert (statistics.worker_deaths, statistics.retried) == (0, 0)
    assert {row.pid for row in service.query("WHERE handler = 'only'")} - first


async def test_a_stop_hands_back_what_has_not_begun_and_finishes_what_runs(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.sleeps",)) as service:
        await service.publish("t.sleeps", *({"s": 0.3} for _ in range(20)))
        await service.until(lambda s: s.acked >= 2)
        await service.aclose()

    done = service.reactor.statistics()
    bus = open_bus(settings_for(bus_url, tmp_path).bus)
    await bus.connect()
    left = await bus.depth("t.sleeps")
    await bus.aclose()
    assert (done.unsettled, done.retried, done.dead) == (0, 0, 0)
    assert len(service.effects("sleeps")) == done.acked
    assert left == 20 - done.acked
    assert len({line["greeting"] for line in service.lines if line["event"] == "stopped in order"}) == 2


async def test_a_handler_that_outlasts_the_drain_is_handed_back_uncharged(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.sleeps",), service={"drain_seconds": 0.2}) as service:
        await service.publish("t.sleeps", {"s": 60})
        await service.line("begun")
        await service.aclose()

    assert service.reactor.statistics().handed_back == 1
    async with running(bus_url, tmp_path, only=("t.answers",)) as again:
        bus = open_bus(again.settings.bus)
        await bus.connect()
        async with bus.hold("t.sleeps", limit=1) as held:
            (delivery,) = [one async for one in held]
        await bus.aclose()
    assert delivery.history.attempts == 0


async def test_what_ran_alone_is_handed_back_without_the_mark_that_would_count_a_death(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.sleeps",), service={"drain_seconds": 0.2}) as service:
        message = make_outgoing("t.sleeps", {"s": 60}, id="m0")
        bus = open_bus(service.settings.bus)
        await bus.connect()
        suspect = replace(message, history=History(1, 1, alone=True))
        assert await bus.publish([suspect], timeout_s=10) == [None]
        await service.line("begun")
        await service.aclose()
        async with bus.hold("t.sleeps", limit=2) as held:
            deliveries = [one async for one in held]
        await bus.aclose()

    assert [delivery.history for delivery in deliveries] == [History(1, 1, starts=3)]


@pytest.mark.parametrize("moment", ["before it connects", "while a worker boots", "as soon as it is ready"])
async def test_a_stop_during_the_start_is_not_lost(bus_url: str, tmp_path: Path, moment: str) -> None:
    make_database(tmp_path)
    settings = settings_for(bus_url, tmp_path)
    reactor = Reactor(load_app(ADDRESS), ADDRESS, open_bus(settings.bus), settings, only=("t.only",))
    stop = Stop()
    if moment == "before it connects":
        stop.request()
    running_one = asyncio.create_task(reactor.run(stop))
    async with asyncio.timeout(DEADLINE_S):
        if moment == "while a worker boots":
            await until(lambda: SlotState.BOOTING in {slot.state for slot in reactor._pool.slots}, pause_s=0)
        elif moment == "as soon as it is ready":
            await reactor.ready.wait()

        stop.request()
        await running_one

    assert reactor.ready.is_set() is (moment == "as soon as it is ready")
    assert reactor.worker_pids == ()


async def test_handlers_run_inline_for_a_debugger(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.store", "t.stored", "t.channel"), inline=True) as service:
        await service.publish("t.store", *({"id": n} for n in range(20)))
        await service.publish("t.channel", {}, ids=["c"])

        await service.settled(41)

    assert len(service.effects("store")) == 20
    assert {row.pid for row in service.query("")} == {os.getpid()}


async def test_async_handlers_need_no_worker(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.stored",), workers={"processes": 0}) as service:
        await service.publish("t.stored", *({"id": n} for n in range(20)))

        await service.settled(20)

    assert service.reactor.worker_pids == ()
    assert len(service.effects("stored")) == 20


async def test_messages_may_be_published_to_the_bus_as_anybody_does(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.only",)) as service:
        bus = open_bus(service.settings.bus)
        await bus.connect()
        bare = [
            Outgoing("t.only", b'{"id": 1}'),
            Outgoing("t.only", b'{"id": 2}', content_type="application/octet-stream"),
        ]
        assert await bus.publish(bare, timeout_s=10) == [None, None]
        await bus.aclose()

        await service.settled(2)

    assert len(service.effects("only")) == 2


async def test_a_handler_that_turned_slow_holds_no_more_than_it_can_settle_in_time(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.idles",), bus={"consumer_timeout_s": 2.0}) as service:
        await service.publish("t.idles", *({"s": 0.4} for _ in range(40)))

        changed = await service.line("prefetch changed, because of the broker's consumer timeout")
        held = await service.until(lambda s: s.handed_back > 20)
        statistics = await service.settled(40)

    assert changed["now"] <= 5
    assert held.acked < 20
    assert statistics.acked == 40
