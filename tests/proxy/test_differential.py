"""The same scenes on sqlite3 and through the proxy: what each call returned, raised and left must be equal.

Of exceptions the type: the proxy has words of its own for some.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from penstock import SQLProxy
from tests.sqlite_scenes import SCENES, Scene, a_result_across_a_commit, attempt, execute, kinds


def values_that_cannot_be_bound(connection: Any) -> Iterator[Any]:
    for value in (object(), [1], {1: 2}, 1j, "\ud800"):
        yield attempt(execute, connection, "SELECT ?", (value,))


@pytest.mark.parametrize(
    "scene",
    [*SCENES, values_that_cannot_be_bound, a_result_across_a_commit],
    ids=lambda scene: scene.__name__,
)
def test_the_proxy_does_what_sqlite3_does(scene: Scene, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "plain.db")) as plain:
        wanted = [kinds(found) for found in scene(plain)]
    with SQLProxy(tmp_path / "proxy.db", processes=2) as proxy, closing(proxy.connect()) as connection:
        assert [kinds(found) for found in scene(connection)] == wanted
