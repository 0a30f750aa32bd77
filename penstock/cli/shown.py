"""What a command shows on stdout: tables for a terminal, whole lines for a pipe, and nobody's control characters."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.app.logs import escape_controls
from penstock.cli.words import secrets

#: A terminal of so many columns has room for a reason beside everything else.
ROOMY_COLUMNS: Final = 160
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


def clean(text: str) -> str:
    """Text of a message, of a header or of an error: no password, and nothing that moves a terminal's cursor."""
    return escape_controls(secrets.hide(text))


def show_text(text: str, *, title: str = "") -> None:
    """A text as it is, under a title."""
    console = _console()
    if title:
        console.print(title, style="bold", markup=False)
    console.print(Text(clean(text)), soft_wrap=True)


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    whole: Sequence[str] = (),
    narrow: Mapping[str, int] = NOTHING,
) -> None:
    """Columns in `whole` are never cut or wrapped: an id that somebody will copy.

    `narrow` gives columns their width in characters on a terminal that has no room for all: the others get the rest.
    """
    console = _console()
    if not console.is_terminal:
        _show_lines([columns, *rows])
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        numbers = bool(rows) and all(_is_number(row[index]) for row in rows)
        table.add_column(
            column,
            no_wrap=column in whole,
            overflow="fold",
            justify="right" if numbers else "left",
            max_width=narrow.get(column) if console.width < ROOMY_COLUMNS else None,
        )
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console.print(table)


def show_pairs(title: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, under a title."""
    console = _console()
    if title:
        console.print(title, style="bold", markup=False)
    if console.is_terminal:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for name, value in pairs:
            table.add_row(Text(clean(name)), Text(clean(value)))
        console.print(table)
    else:
        _show_lines(pairs)
    console.print()


def _console() -> Console:
    return Console(highlight=False)


def _show_lines(rows: Sequence[Sequence[str]]) -> None:
    """For a pipe: columns below each other, each row one line, however long."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").isdigit()
