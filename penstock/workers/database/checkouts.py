"""A debug setting: whoever checks a second connection out while a message runs is shown, with both places in the code.

It watches every SQLAlchemy pool of the process, an engine that a handler makes for itself included.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.pool import Pool

from penstock.app.context import WorkerDatabase
from penstock.app.current import running_database
from penstock.errors import ConnectionMisused

#: Frames of a stack that are shown: the innermost are the handler's.
_FRAMES: Final = 12
_EXECUTION: Final = "/penstock/workers/execute.py"


class CheckoutWatch:
    """One for each worker; nothing is watched while no message runs."""

    def __init__(self, owner: WorkerDatabase) -> None:
        """`owner` is the database whose messages it watches."""
        self._owner = owner
        self._handler = ""
        self._allowed = 0
        self._first = ""
        event.listen(Pool, "checkout", self._checked_out)

    def begin(self, handler: str, first: str) -> None:
        """A message begins; `first` says where its connection comes from until the handler touches it."""
        self._handler, self._first = handler, first

    def note_first(self) -> None:
        """The handler touches the connection that is its own, here."""
        self._first = _stack()

    @contextmanager
    def ours(self) -> Iterator[None]:
        """What is checked out in this block is meant to be."""
        self._allowed += 1
        try:
            yield
        finally:
            self._allowed -= 1

    def close(self) -> None:
        """Watch no more."""
        event.remove(Pool, "checkout", self._checked_out)

    def _checked_out(self, _raw: Any, _record: Any, _proxy: Any) -> None:
        # Another thread is not asked: it is nobody's message. Nor is a message that goes the other way.
        if self._allowed or running_database.get() is not self._owner:
            return
        if not self._first:
            # An adopted engine: the first one in a message is the message's.
            self._first = _stack()
            return
        msg = (
            f"handler {self._handler} checked a second database connection out (database.debug_checkouts): what it does there "
            "is not part of the message's transaction, and counts against the server's max_connections. Use ctx.connection, "
            f"ctx.session or penstock.session there. The message fails.\nThe first:\n{self._first}\nThe second:\n{_stack()}"
        )
        raise ConnectionMisused(msg)


def _stack() -> str:
    frames = list(traceback.extract_stack())
    # Who started the worker is nobody's question: the message begins where it is executed.
    began = max((at for at, frame in enumerate(frames) if frame.filename.endswith(_EXECUTION)), default=-1)
    # Without the frames of this file and of SQLAlchemy's pool, which are nobody's fault.
    frames = [
        frame
        for frame in frames[began + 1 :]
        if "/sqlalchemy/" not in frame.filename and "/penstock/workers/" not in frame.filename
    ]
    return "".join(traceback.format_list(frames[-_FRAMES:])).rstrip()
