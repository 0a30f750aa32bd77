"""What a driver raised, on one line: as the log, and our own errors, say it."""

from __future__ import annotations


def words_of(error: BaseException) -> str:
    """The driver's text; (2003, 'Cannot connect …') becomes 'Cannot connect … (2003)'."""
    original = getattr(error, "orig", None) or error
    arguments = original.args
    if len(arguments) == 2 and isinstance(arguments[0], int):
        text = f"{arguments[1]} ({arguments[0]})"
    else:
        text = str(original)
    words = " ".join(text.split())
    return words or ("no answer in time" if isinstance(original, TimeoutError) else type(original).__name__)
