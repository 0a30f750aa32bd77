"""SQLAlchemy's own plugin for pytest; this folder is run by a pytest of its own, from `tests/dialects/running.py`."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from typing import Any

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.dialects.mysql import provision as _of_mysql  # noqa: E402, F401
from sqlalchemy.dialects.postgresql import provision as _of_postgresql  # noqa: E402, F401
from sqlalchemy.dialects.sqlite import provision  # noqa: E402
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
from sqlalchemy.testing.plugin.pytestplugin import pytest_sessionstart as prepare  # noqa: E402

from tests.channels.dbapi.served import served  # noqa: E402
from tests.dialects.features import mariadb, postgresql, sqlite  # noqa: E402
from tests.dialects.running import SERVED  # noqa: E402

_open = ExitStack()
_attach = provision.post_configure_engine.fns["sqlite"]


@provision.post_configure_engine.for_db("sqlite")
def _without_attached_schema(url: Any, engine: Any, follower_ident: Any) -> None:
    # A second file does not cross the channel; see `schemas` in tests/dialects/requirements.py.
    if engine.driver != "penstock":
        _attach(url, engine, follower_ident)


@pytest.fixture(autouse=True)
def _left_out(request: pytest.FixtureRequest) -> None:
    for database in (sqlite, mariadb, postgresql):
        if any(f"_{name}+penstock" in request.node.nodeid for name in database.NAMES):
            for names, reason in database.LEFT_OUT.items():
                if re.search(names, request.node.nodeid):
                    pytest.skip(reason)


def pytest_sessionstart(session: pytest.Session) -> None:
    """The loop that this process's statements go through, before SQLAlchemy opens its first engine."""
    if url := os.environ[SERVED]:
        _open.enter_context(served(url, synchronous="OFF"))
    prepare(session)


def pytest_unconfigure() -> None:
    """Close it."""
    _open.close()
