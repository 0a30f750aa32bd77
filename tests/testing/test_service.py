"""`embedded_service`: a whole service for one test, on a bus of its own."""

import os
from pathlib import Path
from typing import Any

import pytest

from penstock import App, AsyncContext, Context, HandlerError, Reject
from penstock.testing import embedded_service
from tests.testing import application


async def test_a_message_goes_through_every_handler_and_the_rest_is_a_dead_letter() -> None:
    app = App()
    seen: list[Any] = []

    @app.handler("orders")
    def store(payload: dict[str, int], ctx: Context) -> None:
        if payload["id"] < 0:
            raise Reject("no such order")
        ctx.bus.publish("orders.stored", payload)

    @app.handler("orders.stored")
    async def announce(payload: dict[str, int], ctx: AsyncContext) -> None:
        seen.append(payload)

    async with embedded_service(app) as service:
        await service.client.publish("orders", {"id": 1})
        await service.client.publish("orders", {"id": -1}, id="m-2")
        await service.wait_for(acked=2, dead=1)

        (dead,) = await service.dead_letters("orders")
        assert (dead.id, dead.payload) == ("m-2", {"id": -1})
        assert dead.headers["x-penstock-reason"] == "rejected by the handler: no such order"
        assert await service.dead_letters("orders") == [dead]
        assert service.statistics().unsettled == 0

    assert seen == [{"id": 1}]


async def test_an_address_runs_in_worker_processes(tmp_path: Path) -> None:
    async with embedded_service(f"{application.__name__}:app", processes=1) as service:
        await service.client.publish("pids", str(tmp_path / "pid"))
        await service.wait_for(acked=1)

    assert int((tmp_path / "pid").read_text()) != os.getpid()


async def test_a_worker_process_refuses_to_send_over_another_bus_than_its_service_s(tmp_path: Path) -> None:
    async with embedded_service(f"{application.__name__}:app", processes=1) as service:
        await service.client.publish("sent.on", str(tmp_path / "pid"))
        await service.wait_for(dead=1)
        (dead,) = await service.dead_letters("sent.on")

    assert "publish with ctx.bus.publish('pids', payload)" in str(dead.headers["x-penstock-reason"])
    assert not (tmp_path / "pid").exists()


async def test_waiting_in_vain_says_what_has_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.testing.service.PATIENCE_S", 0.1)
    async with embedded_service(application.app) as service:
        with pytest.raises(AssertionError, match=r"acked=1, retried=0, dead=0 did not come .*delivered=0"):
            await service.wait_for(acked=1)


async def test_worker_processes_need_an_address() -> None:
    with pytest.raises(HandlerError, match="module:attribute"):
        async with embedded_service(application.app, processes=1):
            pytest.fail("it began")


async def test_what_keeps_a_service_from_starting_is_raised_here() -> None:
    app = App()
    app.handler("x")(application.write_pid.function)

    @app.on_worker_start
    def load(state: object) -> None:
        raise LookupError("no rates")

    with pytest.raises(Exception, match="no rates"):
        async with embedded_service(app):
            pytest.fail("it began")
