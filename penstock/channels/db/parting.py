"""Rows of parameters on their way to the loop: in as few frames as they fit in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from msgspec import Raw

from penstock.channels import wire

#: Of a frame, for what stands around the rows.
_AROUND_BYTES: Final = 4096
#: Rows that `executemany` takes from its argument at once: an endless one must not fill the memory.
_MANY: Final = 50_000


def parts(rows: list[Any], limit_bytes: int) -> Iterator[Raw]:
    """The rows, packed; a row that is larger than a frame goes alone, and the channel refuses it."""
    encoded = wire.encode(rows)
    if len(encoded) + _AROUND_BYTES <= limit_bytes or len(rows) <= 1:
        yield Raw(encoded)
        return
    half = len(rows) // 2
    yield from parts(rows[:half], limit_bytes)
    yield from parts(rows[half:], limit_bytes)


def is_one(crossings: Iterator[Raw]) -> tuple[bool, Iterator[Raw]]:
    """True when there is only one of what `batches` gave, and all of them again."""
    taken = list(itertools.islice(crossings, 2))
    return len(taken) < 2, itertools.chain(taken, crossings)


def batches(
    statement: str, rows: Iterable[Any], bound: Callable[[Any], Any], *, limit_bytes: int
) -> Iterator[Raw]:
    """What `executemany` sends: each batch as large as a frame lets it be, one empty batch for no rows at all."""
    # What is no statement is refused by who runs it.
    room_bytes = limit_bytes - len(str(statement).encode(errors="surrogatepass"))
    iterator = iter(rows)
    is_first = True
    while True:
        batch = [bound(row) for row in itertools.islice(iterator, _MANY)]
        if batch or is_first:
            yield from parts(batch, room_bytes)
        is_first = False
        if len(batch) < _MANY:
            return
