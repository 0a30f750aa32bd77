"""A slot with a real process: its end, and who may interrupt it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from penstock.config import load_settings
from penstock.reactor.launch import make_plan, start_fork_server
from penstock.reactor.slot_state import SlotState
from penstock.reactor.slots import Slot


async def test_a_stop_amid_the_end_of_a_worker_that_can_never_work_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that says that it can never work, and is being ended for it
    start_fork_server()
    plan = make_plan(
        "nowhere_to_be_found:app", (), "1", load_settings({}, directory=tmp_path), in_process=False
    )
    slot = Slot(plan, {}, lambda _line: None, lambda _slot: None)
    is_ending = asyncio.Event()
    send_kill = slot._send_kill

    def killing() -> None:
        send_kill()
        is_ending.set()

    monkeypatch.setattr(slot, "_send_kill", killing)
    booting = asyncio.create_task(slot.boot())
    await is_ending.wait()
    assert slot._launched is not None
    process = slot._launched.process
    assert process is not None

    # When the service stops at that moment, because another worker has said the same
    booting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await booting

    # Then the slot can be forgotten: its process is dead
    assert slot.state is SlotState.DEAD
    assert not process.is_alive()
    slot.forget()
