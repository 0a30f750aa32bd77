"""All promises about databases in one run: what was promised, what was measured, whether it is kept.

    python -m benchmarks.database [--only a,b,…] [--quick] [--rounds 3] [--seconds 3]

    a  insert and select in one transaction a message, on SQLite, MariaDB and PostgreSQL: the worker's own connection, the
       channel, and a connection opened for each message
    b  eight workers write into one SQLite file: through the channel, and each committing for itself
    c  64 workers on 8 connections to a server, against a connection each
    d  the proxy with two processes against eight threads with thread-local connections
    e  a million rows through the channel against the driver itself, and the memory that it takes

It starts private servers. Contestants take turns; medians of the rounds' ratios are printed, with what others used of the
machine meanwhile: (d) compares two processes with one, and needs two cores that nobody else uses. Exit code 1 when a
promise is broken. A quick run shows that the benchmark works; its figures say nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.database import crud, few_connections, million, proxy, writers
from benchmarks.database.findings import Effort, Finding
from benchmarks.database.machine import Machine

#: In the order of running: memory can only be measured in a process that has not had much yet.
PARTS: Final[dict[str, Callable[[Path, Effort], Iterator[Finding]]]] = {
    "e": million.measure,
    "a": crud.measure,
    "b": writers.measure,
    "c": few_connections.measure,
    "d": proxy.measure,
}
KEPT: Final = {True: "[green]yes", False: "[red]no", None: ""}


def main() -> int:
    """Run the parts; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(sorted(PARTS)), help="parts, by letter: a,d")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one contestant's writing in a round")
    asked = parser.parse_args()
    chosen = set(asked.only.split(","))
    if unknown := chosen - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(sorted(PARTS))}")
    effort = (
        Effort(rounds=1, seconds=0.3, rows=20_000, workers=16, is_quick=True)
        if asked.quick
        else Effort(asked.rounds, asked.seconds, rows=1_000_000, workers=64, is_quick=False)
    )
    console = Console(width=150)
    findings: list[Finding] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        for part, measure in PARTS.items():
            if part in chosen:
                machine = Machine()
                findings += measure(Path(folder), effort)
                console.print(f"{part}: {machine}")
    console.print(table(findings))
    return int(any(finding.kept is False for finding in findings))


def table(findings: list[Finding]) -> Table:
    """A line a finding."""
    printed = Table("", "what", "measured", "promised", "kept")
    for finding in sorted(findings, key=lambda finding: finding.part):
        printed.add_row(finding.part, finding.what, finding.measured, finding.promised, KEPT[finding.kept])
    return printed


if __name__ == "__main__":
    sys.exit(main())
