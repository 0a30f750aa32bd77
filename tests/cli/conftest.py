"""A working directory for each test."""

from pathlib import Path

import pytest

from tests.cli.program import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """With the application, on the embedded bus and SQLite."""
    return Folder(tmp_path)
