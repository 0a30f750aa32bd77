"""Does the database answer? Asked from a thread of its own, because the question may hang as long as the network does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

#: Between two questions. Each is a connection of its own: a kept one would miss that no new one can be opened.
ASK_EVERY_S: Final = 2.0
#: An answer counts for so long: a database that has gone silent is seen to be away within this time.
ANSWER_LASTS_S: Final = 5.0

_log = structlog.get_logger("penstock.health")


class DatabaseWatch:
    """Calls `ask` again and again; it returns None when the database answered, or why not, in words."""

    def __init__(self, ask: Callable[[], str | None]) -> None:
        self._ask = ask
        self._answered_s: float | None = None
        self._why: str | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_asking, name="penstock-database-watch", daemon=True)

    def __repr__(self) -> str:
        return f"<DatabaseWatch [{self.why_not() or 'it answers'}]>"

    def start(self) -> None:
        """Ask for the first time, and go on."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question that hangs is left behind."""
        self._ended.set()

    def why_not(self) -> str | None:
        """Why the database counts as away, in words; None when it has answered. From any thread."""
        if self._why is not None:
            return self._why
        if self._answered_s is None:
            return "the database has not answered yet"
        age_s = time.monotonic() - self._answered_s
        return None if age_s <= ANSWER_LASTS_S else f"the database has not answered for {age_s:.0f} s"

    def _keep_asking(self) -> None:
        while not self._ended.is_set():
            try:
                why = self._ask()
            except Exception as error:  # noqa: BLE001 - whatever a driver raises is no answer
                why = f"the database cannot be asked: {type(error).__name__}: {error}"
            if why is None:
                self._answered_s = time.monotonic()
            if why != self._why:
                if why is None:
                    _log.info("the database answers again")
                elif self._why is None:
                    _log.warning("the database does not answer: the service is not ready", why=why)
                self._why = why
            self._ended.wait(ASK_EVERY_S)
