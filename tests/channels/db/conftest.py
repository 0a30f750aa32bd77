"""The databases of this folder's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.channels.conftest import Workshop, until
from tests.channels.db import databases, server_case


@pytest.fixture(params=databases.KINDS)
async def each(
    request: pytest.FixtureRequest, tmp_path: Path, workshop: Workshop
) -> AsyncIterator[databases.Case]:
    """Each database in turn."""
    case = databases.case_of(request, tmp_path, workshop)
    yield case
    await case.aclose()


@pytest.fixture(params=server_case.KINDS)
async def case(request: pytest.FixtureRequest) -> AsyncIterator[server_case.Case]:
    """Each server in turn."""
    kind = request.param
    made = server_case.Case(kind, request.getfixturevalue(kind), request.getfixturevalue(f"{kind}_url"))
    yield made
    for service in made.made:
        await service.aclose()
    await until(lambda: made.connections() == 0)
