"""What the frames carry: the messages between a worker and the loop, typed, encoded as msgpack.

A worker sends `Call`, `Ended` and `Line`; the loop answers a call with `Answer` or `Refusal`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw, Struct

from penstock import errors
from penstock.app.outcomes import Outcome


class Call(Struct, frozen=True, array_like=True, tag=True):
    """A worker asks a service on the loop for something and waits."""

    id: int
    service: str
    method: str
    arguments: Raw


class Ended(Struct, frozen=True, array_like=True, tag=True):
    """A delivery of the running batch ended with more to say than the recorder's one byte."""

    batch: int
    index: int
    outcome: Outcome


class Line(Struct, frozen=True, array_like=True, tag=True):
    """One whole line of the log, or of what a handler printed."""

    level: str
    event: str
    fields: dict[str, Any]


class Answer(Struct, frozen=True, array_like=True, tag=True):
    """What the service returned."""

    id: int
    value: Raw


class Refusal(Struct, frozen=True, array_like=True, tag=True):
    """The service raised; `name` is the exception's name in `penstock.errors`, else `ChannelError`."""

    id: int
    name: str
    text: str
    kind: str = ""


FromWorker: TypeAlias = Call | Ended | Line
FromLoop: TypeAlias = Answer | Refusal

encode = msgspec.msgpack.Encoder().encode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_from_loop = msgspec.msgpack.Decoder(FromLoop).decode


def refusal(call_id: int, error: BaseException, *, limit_bytes: int) -> Refusal:
    """The words of an exception, for the other side; cut to a quarter of a frame, because they must arrive."""
    if isinstance(error, errors.DatabaseError):
        return Refusal(call_id, type(error).__name__, _carriable(str(error), limit_bytes), error.kind)
    if isinstance(error, errors.PenstockError):
        return Refusal(call_id, type(error).__name__, _carriable(str(error), limit_bytes))
    return Refusal(call_id, "ChannelError", _carriable(f"{type(error).__name__}: {error}", limit_bytes))


def _carriable(text: str, limit_bytes: int) -> str:
    # Lone surrogates have no UTF-8, and an answer that cannot be written would leave its caller waiting for ever.
    return text.encode(errors="backslashreplace")[: limit_bytes // 4].decode(errors="ignore")


def exception(refused: Refusal) -> errors.PenstockError:
    """The exception that a refusal stands for; `ChannelError` when its name is not one of ours."""
    found = getattr(errors, refused.name, errors.ChannelError)
    if not (isinstance(found, type) and issubclass(found, errors.PenstockError)):
        found = errors.ChannelError
    if issubclass(found, errors.DatabaseError):
        return found(refused.text, refused.kind)
    return found(refused.text)
