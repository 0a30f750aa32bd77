"""The way back, where a lost connection makes a letter come again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from penstock.app.messages import Outgoing
from penstock.buses.contract import Bus
from penstock.dead.choice import Choice
from penstock.dead.letter import Letter
from penstock.dead.passes import Task
from penstock.dead.replaying import Replaying
from penstock.errors import PublishError
from penstock.reactor import deadletter
from tests.reactor.deliveries import Ledger, delivery


class Taker:
    """Takes whatever is published."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    async def publish(self, messages: Sequence[Outgoing], **_: float) -> list[PublishError | None]:
        self.taken += [message.message_id for message in messages]
        return [None] * len(messages)

    async def flush(self) -> None: ...


def replaying(taker: Taker) -> Replaying:
    return Replaying(cast("Bus", taker), timeout_s=1.0, rate=None)


def letter(ledger: Ledger, *, at_s: float = 1_700_000_000.0, **options: Any) -> Letter:
    headers = {deadletter.LAST_AT: deadletter.moment(at_s), **options.pop("headers", {})}
    return Letter(delivery(ledger, headers=headers, **options), "orders")


async def test_a_letter_whose_ack_was_lost_is_forgotten_and_not_sent_twice() -> None:
    taker, ledger = Taker(), Ledger()
    one = replaying(taker)
    await one.send([letter(ledger, tag=1)])

    await one.send([letter(ledger, tag=7, redelivered=True)])

    assert taker.taken == ["m1"]
    assert ledger.acked == [1, 7]


async def test_what_only_looks_like_it_is_sent() -> None:
    taker, ledger = Taker(), Ledger()
    one = replaying(taker)
    await one.send([letter(ledger), letter(ledger, message_id=None)])

    await one.send(
        [
            letter(ledger),  # nobody has seen it before
            letter(ledger, redelivered=True, at_s=1_700_000_001.0),  # failed once more
            letter(ledger, redelivered=True, body=b"[]"),
            letter(ledger, redelivered=True, message_id=None),
        ]
    )

    assert len(taker.taken) == 6


def test_a_letter_that_was_sent_back_in_this_run_and_failed_again_is_known() -> None:
    one = replaying(Taker())
    now = deadletter.moment(time.time() + 1)
    again = {deadletter.REPLAYS: 1, deadletter.PAST: json.dumps([{"replayed_at": now}])}
    before = {deadletter.REPLAYS: 1, deadletter.PAST: json.dumps([{"replayed_at": deadletter.moment(0.0)}])}

    assert one.is_known(letter(Ledger(), headers=again))
    assert not one.is_known(letter(Ledger(), headers=before))
    assert not one.is_known(letter(Ledger()))


async def test_a_round_that_is_being_sent_is_ended_before_an_interruption_takes_effect() -> None:
    begun, confirmed, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def treat(_: Sequence[Letter]) -> None:
        begun.set()
        await confirmed.wait()
        ended.set()

    task = Task(cast("Bus", Taker()), "orders", 1, Choice(), treat)
    treating = asyncio.create_task(task._treat([letter(Ledger())]))
    await begun.wait()
    treating.cancel()
    asyncio.get_running_loop().call_soon(confirmed.set)

    with pytest.raises(asyncio.CancelledError):
        await treating

    assert ended.is_set()
