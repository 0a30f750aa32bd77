"""Where SQLite's file is, and whether the one there is still the one that a connection opened.

A file that was replaced (`mv restored.db app.db`) stays what its open connections read and write: rows written to
it then would be nobody's.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import unquote

import structlog

from penstock.errors import DatabaseBusy

#: Device and number of a file.
Identity: TypeAlias = tuple[int, int]

#: How often the file is looked for, however many connections ask.
_LOOK_EACH_S: Final = 1.0


class DatabaseFile:
    """The file as the worker's own connection would find it; asked by the loop and by the connections' threads."""

    def __init__(self, location: str, *, is_uri: bool) -> None:
        self.location = location
        self.is_uri = is_uri
        path = unquote(location.removeprefix("file:").partition("?")[0]) if is_uri else location
        self._path = os.path.realpath(path)
        # Whoever looks writes both; that two look at once does no harm.
        self._seen: Identity | None = None
        self._looked_at_s = 0.0
        self._was_opened = False

    @property
    def name(self) -> str:
        """The file's name, for an error's words."""
        return Path(self.location.partition("?")[0]).name

    @property
    def is_folder(self) -> bool:
        """True when there can be no file."""
        return Path(self._path).is_dir()

    def check_there(self) -> Identity | None:
        """Which file is about to be opened; None for one that is about to be made.

        Raises `DatabaseBusy` when it has gone: made anew it would be empty, and every statement would fail.
        """
        found = self._look()
        if found is None and self._was_opened:
            raise self.replaced("nothing of the statement was run")
        return found

    def note_opened(self, before: Identity | None) -> Identity | None:
        """Which file a connection has opened, `before` being what was there before it did."""
        self._was_opened = True
        # Should it have been replaced in between, the next look tells.
        return before or self._look()

    def is_still(self, opened: Identity | None) -> bool:
        """True while this one is there, as far as a look told within the last second."""
        if time.monotonic() - self._looked_at_s > _LOOK_EACH_S:
            self._look()
        return self._seen == opened

    def replaced(self, what: str) -> DatabaseBusy:
        """For who needs the file that is not there any more; `what` became of the call."""
        if self._seen is None:
            words = f"the file {self._path} has gone; put it back, or restart the service to begin with an empty one"
        else:
            words = f"the file {self._path} is another one now"
        error = DatabaseBusy(f"{words}; {what}")
        error.__cause__ = FileNotFoundError(self._path)
        return error

    def _look(self) -> Identity | None:
        try:
            stat = Path(self._path).stat()
            found = (stat.st_dev, stat.st_ino)
        except FileNotFoundError:
            found = None
        if found != self._seen and self._seen is not None:
            structlog.get_logger("penstock.database").warning(
                "the database's file was replaced under the channel; its connections open the new one"
                if found
                else "the database's file has gone; the channel's messages wait until it is back",
                path=self._path,
            )
        self._seen, self._looked_at_s = found, time.monotonic()
        return found
