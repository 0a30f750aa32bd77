"""SQLAlchemy's dialect compliance suite on `sqlite+penstock://`, beside the plain driver: the same tests pass."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import sqlalchemy

from tests.dialects.features.sqlite import NO_FUNCTIONS, NO_SECOND_FILE, NO_TEMPORARY, UNCOLLECTED
from tests.dialects.running import Suite

#: What the channel leaves out; every test that passes on the plain driver and not here has one of them.
REASONS = (NO_SECOND_FILE, NO_TEMPORARY, NO_FUNCTIONS)


def test_the_tests_that_pass_on_the_plain_driver_pass_over_the_channel(tmp_path: Path) -> None:
    with ExitStack() as stack:
        runs = []
        for name, url, served in [
            ("plain", f"sqlite:///{tmp_path}/plain/suite_db.db", ""),
            ("channel", "sqlite+penstock://", f"sqlite:///{tmp_path}/suite.db"),
        ]:
            folder = tmp_path / name
            folder.mkdir()
            runs.append(stack.enter_context(closing(Suite(url, folder, served=served))))
        plain, channel = [run.result() for run in runs]
    assert channel.failed == {}
    assert plain.failed == {}
    # SQLAlchemy 2.0's suite is smaller.
    assert len(channel.passed) > (1200 if sqlalchemy.__version__ >= "2.1" else 1000)
    assert channel.unexplained(plain, REASONS, UNCOLLECTED) == {}
