"""What the demo shows at the end: what is in the database, what is in the dead-letter queue, where to look next."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, func, select

from penstock.app import header_names
from penstock.buses.connecting import connected
from penstock.cli.demo.folder import DemoFolder
from penstock.cli.shown import show_table, show_text
from penstock.config import Settings
from penstock.dead.letter import Letter
from penstock.demo import tables

LARGEST: Final = 6
MOST_IMPORTED: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How it went."""

    files: int
    settled: int
    took_s: float
    processes: int
    queue: str
    bus_flag: str | None
    """The URL as it may be shown; None when it holds a password."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the database says."""

    modules: int
    counted: int
    """Modules in the packages' totals; as many as there are modules."""
    faults: int
    packages: list[tuple[str, ...]]
    imported: list[tuple[str, ...]]


def read_totals(database_url: str) -> Totals:
    """Ask the database, as anybody would."""
    engine = create_engine(database_url)
    modules, packages, imports = tables.modules.c, tables.packages.c, tables.imports.c
    importers = func.count().label("importers")
    try:
        with engine.connect() as connection:
            return Totals(
                modules=connection.scalar(select(func.count()).select_from(tables.modules)) or 0,
                counted=connection.scalar(select(func.sum(packages.modules))) or 0,
                faults=connection.scalar(select(func.count()).where(modules.fault.is_not(None))) or 0,
                packages=[
                    (row.name, *(f"{number:,}" for number in row[1:]))
                    for row in connection.execute(
                        select(
                            packages.name,
                            packages.modules,
                            packages.classes,
                            packages.functions,
                            packages.lines,
                        )
                        .order_by(packages.lines.desc())
                        .limit(LARGEST)
                    )
                ],
                imported=[
                    (row.name, f"{row.importers:,}")
                    for row in connection.execute(
                        select(imports.name, importers)
                        .group_by(imports.name)
                        .order_by(importers.desc(), imports.name)
                        .limit(MOST_IMPORTED)
                    )
                ],
            )
    finally:
        engine.dispose()


async def read_letters(settings: Settings, queue: str) -> list[Letter]:
    """What is in the dead-letter queue; it stays there."""
    async with connected(settings.bus) as bus, bus.hold(f"{queue}.dead", limit=100) as deliveries:
        return [Letter(delivery, queue) async for delivery in deliveries]


def show_report(
    run: Run, totals: Totals, letters: Sequence[Letter], folder: DemoFolder, database: str
) -> None:
    """Tables, figures, and the next commands."""
    show_table("Largest packages", ("package", "modules", "classes", "functions", "lines"), totals.packages)
    show_table("Most imported modules", ("module", "imported by"), totals.imported)
    rows = [(one.id, one.reason, one.says(header_names.ATTEMPTS)) for one in letters]
    show_table(f"Dead letters of {run.queue}", ("id", "why", "attempts"), rows, whole=("id",))
    rate = run.settled / run.took_s if run.took_s else 0.0
    workers = "1 worker process" if run.processes == 1 else f"{run.processes} worker processes"
    figures = f"{run.settled:,} messages in {run.took_s:.1f} s, {rate:,.0f} a second"
    told = [
        f"{run.files:,} files and {len(letters)} broken messages: {figures}, with {workers}.",
        f"{totals.modules:,} modules are in the database, {totals.counted:,} in the totals.",
    ]
    if totals.faults:
        told.append(f"{totals.faults} of them no parser takes: Python's own tests keep such files.")
    show_text("\n".join(told))
    show_text(f"\nDatabase  {database}\nFolder    {folder.path} (log and settings; kept until the next demo)")
    if letters:
        # On a line of its own, which can be copied whole.
        show_text(f"\nNext, look at the last dead letter:\n{next_command(run, letters[-1].id, folder)}")


def next_command(run: Run, message_id: str, folder: DemoFolder) -> str:
    """A command that works when it is pasted, as long as the folder is there."""
    command = f"{own_command()} dead show {run.queue} {shlex.quote(message_id)}"
    if run.bus_flag is None:
        # The URL has a password: it is in the folder's penstock.toml, and is not shown.
        return f"cd {shlex.quote(str(folder.path))} && {command}"
    return f"{command} --bus {shlex.quote(run.bus_flag)}"


def own_command() -> str:
    """How this program was started, so that it starts again: a name on the PATH, a file, or a module."""
    name = Path(sys.argv[0])
    if name.stem == "__main__" or name.suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m penstock"
    found = shutil.which("penstock")
    if found is not None and Path(found).resolve() == name.resolve():
        return "penstock"
    return shlex.quote(str(name.resolve()))
