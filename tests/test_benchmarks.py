"""The benchmark of databases runs; what it measures in a quick run is nobody's business."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_its_parts_run_by_themselves_and_say_what_is_kept() -> None:
    # Those without a server, which have to boot.
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.database", "--quick", "--only", "b,d"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    # A promise may be broken by a quick run.
    assert ended.returncode in (0, 1), ended.stderr
    assert "promised" in ended.stdout, ended.stdout + ended.stderr
    for line in ("FULL: worst wait", "NORMAL: smallest share", "count(*)", "reduced with run", "Pool.apply"):
        assert line in ended.stdout, ended.stdout


def test_a_part_that_there_is_not_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.database", "--only", "a,x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 2
    assert "there is no part x: a, b, c, d, e" in ended.stderr
