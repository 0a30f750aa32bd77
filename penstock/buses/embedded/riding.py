"""The part of a message's history that has no column of its own: it rides among the headers, under one name.

Nobody sees it there: it is put on when a message is stored and taken off when it is delivered. A client refuses
headers with this name, so that only Penstock writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from penstock.app.messages import FRESH, HeaderValue, History

RIDING: Final = "x-penstock-riding"


def with_riding(headers: Mapping[str, Any], history: History) -> dict[str, Any]:
    """The headers as they are stored."""
    if not (history.commit_unknown or history.replays):
        return dict(headers)
    return {**headers, RIDING: [history.commit_unknown, history.replays, history.past]}


def without_riding(packed: bytes | None) -> tuple[dict[str, HeaderValue], History]:
    """The headers as they are delivered, and what rode among them."""
    if packed is None:
        return {}, FRESH
    headers: dict[str, Any] = msgspec.msgpack.decode(packed)
    match headers.pop(RIDING, None):
        case [bool(commit_unknown), int(replays), str(past)]:
            return headers, History(commit_unknown=commit_unknown, replays=replays, past=past)
        case _:
            return headers, FRESH
