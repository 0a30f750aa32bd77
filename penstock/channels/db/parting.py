"""Rows of parameters on their way to the loop: in as few frames as they fit in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from msgspec import Raw

from penstock.channels import wire

#: Of a frame, for what stands around the rows.
_AROUND_BYTES: Final = 4096


def parts(rows: list[Any], limit_bytes: int) -> Iterator[Raw]:
    """The rows, packed; a row that is larger than a frame goes alone, and the channel refuses it."""
    encoded = wire.encode(rows)
    if len(encoded) + _AROUND_BYTES <= limit_bytes or len(rows) <= 1:
        yield Raw(encoded)
        return
    half = len(rows) // 2
    yield from parts(rows[:half], limit_bytes)
    yield from parts(rows[half:], limit_bytes)
