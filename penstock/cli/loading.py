"""Import the application that a command was given, and word what its module raises."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Final

from penstock.app.application import App, load_app
from penstock.errors import ConfigurationError, PenstockError

#: Frames of these lie between us and the author's module and tell nobody anything.
_OURS: Final = (str(Path(__file__).parents[1]), "<frozen importlib", "importlib/__init__.py")


def load_application(address: str) -> App:
    """The `App` at `module:attribute`.

    Raises `HandlerError` when it is not there; `ConfigurationError` with the author's own frames when the module
    fails while it is imported.
    """
    try:
        return load_app(address)
    except PenstockError:
        raise
    except Exception as error:
        trace = traceback.TracebackException.from_exception(error)
        trace.stack = traceback.StackSummary.from_list(
            [frame for frame in trace.stack if not any(part in frame.filename for part in _OURS)]
        )
        told = "".join(trace.format()).rstrip()
        msg = f"application {address!r} cannot be imported; its own code raised:\n{told}"
        raise ConfigurationError(msg) from error
