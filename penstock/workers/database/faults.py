"""What an exception says about the database, wherever in its chain the driver's own error is."""

from __future__ import annotations

from collections.abc import Iterator


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything a traceback would show above it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if current.__cause__ is not None:
            current = current.__cause__
        else:
            current = None if current.__suppress_context__ else current.__context__


def words_of(error: BaseException) -> str:
    """The driver's text on one line; (2003, 'Cannot connect …') becomes 'Cannot connect … (2003)'."""
    original = getattr(error, "orig", None) or error
    arguments = original.args
    if len(arguments) == 2 and isinstance(arguments[0], int):
        text = f"{arguments[1]} ({arguments[0]})"
    else:
        text = str(original)
    return " ".join(text.split()) or type(original).__name__
