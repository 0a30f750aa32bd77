"""An async handler that swallows its cancellation does not keep the service from ending."""

from __future__ import annotations

from pathlib import Path

from penstock.app.payloads import make_outgoing
from penstock.buses.address import open_bus
from tests.service.processes import ServiceProcess
from tests.service.running import make_database, settings_for


async def test_a_handler_that_cannot_be_cancelled_is_handed_back_and_the_service_ends(tmp_path: Path) -> None:
    bus_url = f"sqlite:///{tmp_path / 'bus.db'}"
    make_database(tmp_path)
    service = await ServiceProcess.start(
        bus_url, tmp_path, "--only", "t.stubborn", "--drain-seconds", "0.2", processes=0
    )
    await service.wait_line("consuming")
    bus = open_bus(settings_for(bus_url, tmp_path).bus)
    await bus.connect()
    await bus.publish([make_outgoing("t.stubborn", {}, id="m0")], timeout_s=10)
    await service.wait_line("begun")

    code = await service.stop()

    assert code == 0
    assert any("goes on although it was cancelled" in line["event"] for line in service.lines)
    async with bus.hold("t.stubborn", limit=2) as held:
        assert [delivery.message_id async for delivery in held] == ["m0"]
    await bus.aclose()
