"""A command loads what it needs and nothing else, so that a shell and a health check get their answer at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED_BY = """
import json, sys
sys.argv = ["penstock", *{words!r}]
from penstock.cli import main
try:
    main()
except SystemExit as left:
    code = left.code
print(json.dumps([code, sorted(sys.modules)]), file=sys.__stderr__)
"""

HEAVY = {
    "aio_pika",
    "aiormq",
    "aiosqlite",
    "sqlalchemy",
    "penstock.reactor.service",
    "penstock.workers.entry",
}


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], HEAVY | {"pydantic", "structlog", "msgspec"}),
        (["dead", "--help"], HEAVY | {"structlog", "msgspec"}),
        (["--version"], HEAVY | {"pydantic", "structlog", "msgspec"}),
        (["check", "--live"], HEAVY),
        (["publish", "orders", "{}", "--bus", "sqlite:///none.db"], HEAVY),
        (["dead", "list", "orders", "--bus", "sqlite:///none.db"], HEAVY),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_command_loads_only_what_it_needs(
    words: list[str], unwanted: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED_BY.format(words=words)],
        cwd=tmp_path_factory.mktemp("empty"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    _, loaded = json.loads(done.stderr.splitlines()[-1])
    assert "penstock.cli" in loaded
    assert unwanted & set(loaded) == set()
