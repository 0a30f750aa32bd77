"""Where in an exception's chain the driver's own error may be."""

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
