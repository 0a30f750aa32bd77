"""What the everyday run leaves out: PENSTOCK_TEST_FAULTS=all runs it too."""

from __future__ import annotations

import os

import pytest

ALL = os.environ.get("PENSTOCK_TEST_FAULTS") == "all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [] if ALL else [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
