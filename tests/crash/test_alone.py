"""The embedded bus with real services: a full database disk, leftovers of a killed one, two versions side by side."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from penstock.app.messages import Outgoing
from tests.cli.program import Folder, until
from tests.cli.services import depths, put, waiting
from tests.crash.alone import alone
from tests.crash.scene import even, tasks
from tests.machine import fill, small_disk

#: One handler was renamed with its queue; the other's messages have a field more.
OLD = """
from pydantic import BaseModel
from sqlalchemy import text
from penstock import App, Context
app = App()

class Order(BaseModel):
    id: int

def note(ctx, what):
    ctx.connection.execute(text("INSERT INTO notes (what, pid) VALUES (:what, 0)"), {"what": what})

@app.handler("orders")
def store(order: Order, ctx: Context) -> None:
    note(ctx, f"order {order.id}")

@app.handler("mails")
def mail(payload: dict, ctx: Context) -> None:
    note(ctx, f"mail {payload['id']}")
"""
NEW = OLD.replace("id: int", "id: int\n    currency: str = 'EUR'").replace("mail", "letter")


async def test_a_full_disk_of_the_database_is_charged_to_nobody_and_all_drains_when_there_is_room(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path, mib=4) as disk:
        async with alone(tmp_path, database_folder=disk) as scene:
            service = await scene.start_service()
            ids = await scene.publish("c.work", *tasks(5))
            await scene.done(ids)
            somebody_elses = fill(disk)
            ids += await scene.publish("c.work", *tasks(50))
            line = await service.wait_line("message is retried", count=100)
            assert "disk is full" in str(line)

            await asyncio.to_thread(somebody_elses.unlink)

            await scene.done(ids)
            attempts = {effect.attempt for effect in scene.ledger.effects()}
            balance = await scene.close()

    assert attempts == {1}
    even(balance, effects=55, dead=0, duplicates=0)


async def test_what_a_killed_service_leaves_behind_hinders_neither_the_next_one_nor_two_of_them(
    tmp_path: Path,
) -> None:
    async with alone(tmp_path, BUS__LEASE_S="600") as scene:
        service = await scene.start_service()
        await scene.publish("c.work", *tasks(2, s=0.2))
        await service.wait_line("begun", count=2)
        await service.kill()
        # Its lease, its pipes and its ballast are there; nobody believes a file that it was alive.
        await asyncio.gather(*(scene.start_service(processes=1) for _ in range(2)))
        ids = [line.message_id for line in scene.ledger.confirmed()]
        ids += await scene.publish("c.work", *tasks(200))
        await scene.done(ids)
        balance = await scene.close()

    assert not list((tmp_path / "bus.db-pipes").iterdir())
    assert not balance.lost
    assert not balance.unexplained
    assert balance.effects - balance.duplicates == len(ids)


def test_an_old_and_a_new_version_side_by_side_drop_nothing(folder: Folder) -> None:
    folder.write("old.py", OLD)
    folder.write("new.py", NEW)
    url = f"sqlite:///{folder.path / 'bus.db'}"
    orders = [{"id": n} if n % 2 else {"id": n, "currency": "USD"} for n in range(100)]
    with folder.running("old:app") as old, folder.running("new:app") as new:
        for running in (old, new):
            running.wait_line("consuming")
        put(url, [Outgoing("orders", json.dumps(order).encode()) for order in orders])
        for word in ("mail", "letter"):
            put(url, [Outgoing(f"{word}s", b'{"id": 1}')])
            folder.wait_note(f"{word} 1")
        # Of a kind that neither knows.
        put(url, [Outgoing("orders", b'{"kind": "refund", "of": 7}')])
        until(lambda: depths(url, "orders.dead") == [1], "the dead letter")
        until(lambda: sum(what.startswith("order ") for what in folder.notes()) == 100, "every order")
        old.terminate()
        assert old.wait() == 0
        # For a handler that nobody has any more: it waits for whoever will.
        put(url, [Outgoing("mails", b'{"id": 2}')])
        assert depths(url, "mails") == [1]
        new.terminate()
        assert new.wait() == 0
    with folder.running("old:app") as old:
        folder.wait_note("mail 2")
        old.terminate()
        assert old.wait() == 0

    (refund,) = waiting(url, "orders.dead")
    assert "id" in str(refund.headers["x-penstock-reason"])
    assert sorted(folder.notes()) == sorted(
        [f"order {n}" for n in range(100)] + ["mail 1", "mail 2", "letter 1"]
    )


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """With a database and an embedded bus."""
    return Folder(tmp_path)
