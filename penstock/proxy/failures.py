"""From words back to exceptions: the driver's own where the driver raised, else Python's, else `ProxyError`."""

from __future__ import annotations

import builtins
from types import ModuleType

from penstock.errors import ProxyError
from penstock.proxy.wire import Failed

_IN_SUBPROCESS = "in the subprocess:\n"


def exception_of(failed: Failed, driver: ModuleType) -> Exception:
    """The exception that the words stand for, with the subprocess's traceback as a note."""
    error: Exception
    if failed.module == "driver":
        error = getattr(driver, failed.name)(*failed.arguments)
        if failed.code is not None:
            error.sqlite_errorcode = failed.code  # type: ignore[attr-defined]
    elif failed.module == "builtins" and _is_plain(failed.name):
        error = getattr(builtins, failed.name)(*failed.arguments)
    else:
        words = ": ".join([f"{failed.module}.{failed.name}", *map(str, failed.arguments)])
        error = ProxyError(words, f"{failed.module}.{failed.name}")
    error.add_note(_IN_SUBPROCESS + failed.traceback.rstrip())
    return error


def _is_plain(name: str) -> bool:
    kind = getattr(builtins, name, None)
    # Of an encoding's failure there are five arguments of exact types.
    return isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, UnicodeError)
