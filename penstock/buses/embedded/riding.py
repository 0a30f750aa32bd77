"""The part of a message's history that has no column of its own: it rides among the headers, under one name.

Nobody sees it there: it is put on when a message is stored and taken off when it is delivered. A client refuses
headers with this name, so that only Penstock writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from penstock.app.messages import FRESH, HeaderValue, History

RIDING: Final = "x-penstock-riding"


def with_riding(headers: Mapping[str, Any], history: History) -> dict[str, Any]:
    """The headers as they are stored."""
    riding = replace(history, attempts=0, crashes=0, first_failed_at_s=0.0)
    return dict(headers) if riding == FRESH else {**headers, RIDING: riding}


def without_riding(packed: bytes | None) -> tuple[dict[str, HeaderValue], History]:
    """The headers as they are delivered, and what rode among them."""
    if packed is None:
        return {}, FRESH
    headers: dict[str, Any] = msgspec.msgpack.decode(packed)
    riding = headers.pop(RIDING, None)
    if riding is None:
        return headers, FRESH
    try:
        return headers, msgspec.convert(riding, History)
    except msgspec.ValidationError:
        # Another version of Penstock wrote it; its message counts as a new one.
        return headers, FRESH
