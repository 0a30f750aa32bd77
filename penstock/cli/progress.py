"""The progress bar of every command: on a terminal only, on stderr, so that stdout stays for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

#: Called with how much is done, and how many messages that is.
Show: TypeAlias = Callable[[int, int], None]


class _Rate(ProgressColumn):
    """Messages, and messages a second since the start."""

    def render(self, task: Task) -> Text:
        messages = int(task.fields.get("messages", 0))
        elapsed_s = task.finished_time or task.elapsed or 0.0
        rate = f", {messages / elapsed_s:,.0f} a second" if elapsed_s >= 1 else ""
        return Text(f"{messages:,} messages{rate}")


@contextmanager
def showing(title: str, total: int | None) -> Iterator[Show]:
    """A bar while the block runs; `total` None when nobody knows how much there is."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(),
        TimeElapsedColumn() if total is None else TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with progress:
        task = progress.add_task(title, total=total)

        def show(done: int, messages: int) -> None:
            progress.update(task, completed=done, messages=messages)

        yield show
