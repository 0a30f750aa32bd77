"""From an exception to plain data; exceptions themselves never cross a process border."""

from __future__ import annotations

import traceback

from penstock.app.outcomes import AskedRetry, Failure, Outcome, Raised, Reject, Rejected, Retry

#: Characters that travel; the end of a traceback is what tells.
MAX_TRACEBACK_CHARS = 16 * 1024
MAX_TEXT_CHARS = 4 * 1024


def failure_of(error: BaseException) -> Failure:
    """Type, text and traceback of an exception; never raises, whatever its `__str__` does."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - an author's __str__
        text = f"(its text cannot be read: {type(broken).__name__})"
    try:
        trace = "".join(traceback.format_exception(error))
    except BaseException as broken:  # noqa: BLE001 - the same
        trace = f"(its traceback cannot be read: {type(broken).__name__})"
    return Failure(_carried(name), _carried(text[:MAX_TEXT_CHARS]), _carried(trace[-MAX_TRACEBACK_CHARS:]))


def outcome_of(
    error: BaseException, *, charged: bool, commit_unknown: bool = False, lost_amid: bool = False
) -> Outcome:
    """How a handler's run ended when it raised; `charged` counts only for what is not `Retry` or `Reject`."""
    if isinstance(error, Retry):
        return AskedRetry(error.delay, error.reason)
    if isinstance(error, Reject):
        return Rejected(error.reason)
    return Raised(failure_of(error), charged=charged, commit_unknown=commit_unknown, lost_amid=lost_amid)


def _carried(text: str) -> str:
    # msgpack carries UTF-8; a lone surrogate in an exception's text must not cost the outcome.
    return text.encode("utf-8", "backslashreplace").decode()
