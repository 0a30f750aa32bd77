"""The servers of this folder's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.channels.conftest import until
from tests.channels.db.server_case import KINDS, Case


@pytest.fixture(params=KINDS)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    kind = request.param
    made = Case(kind, request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_url"))
    yield made
    for service in made.made:
        await service.aclose()
    await until(lambda: made.connections() == 0)
