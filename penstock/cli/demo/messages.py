"""What the demo publishes: a message for every source file, and three that cannot be handled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from penstock.app.messages import Outgoing
from penstock.app.payloads import JSON, make_outgoing
from penstock.demo.handlers import Found

#: How many of them no run can handle.
BROKEN: Final = 3


def messages_for(queue: str, files: Sequence[tuple[Path, str]], folder: Path) -> Iterator[Outgoing]:
    """The messages in order; the broken ones stand among the good ones, where they would do harm."""
    broken = broken_messages(queue, folder)
    gap = len(files) // (len(broken) + 1) or 1
    for number, (path, module) in enumerate(files, 1):
        yield make_outgoing(queue, Found(path=path, module=module), id=module)
        if number % gap == 0 and broken:
            yield broken.pop(0)
    yield from broken


def broken_messages(queue: str, folder: Path) -> list[Outgoing]:
    """Not JSON at all; JSON of another shape; and a file that is not there."""
    gone = Found(path=folder / "no_such_file.py", module="broken.no_such_file")
    return [
        Outgoing(queue, b'{"path": "/usr/lib/pyth', message_id="broken-not-json", content_type=JSON),
        Outgoing(queue, b'{"path": 42}', message_id="broken-not-a-path", content_type=JSON),
        make_outgoing(queue, gone, id="broken-no-such-file"),
    ]
