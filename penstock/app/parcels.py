"""Many messages on their way out: cut into parcels, so that one is confirmed while the next is being filled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from uuid import uuid4

from msgspec.structs import replace

from penstock.app.messages import Outgoing
from penstock.app.payloads import make_outgoing
from penstock.errors import PayloadError, PublishError

#: Parcels that one window is cut into: while the first is confirmed, the others travel.
PARCELS_IN_WINDOW: Final = 4
#: A parcel is closed at so many bytes of bodies, so that a window of large messages does not fill the memory.
PARCEL_BYTES: Final = 4 * 1024 * 1024

#: `(queue, payload)`, `(queue, payload, {"id": …})` with `Options`, or a message that is made already.
Item: TypeAlias = Outgoing | tuple[str, Any] | tuple[str, Any, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Published:
    """What became of one message of `publish_many`: confirmed when `error` is None."""

    id: str
    """Empty when the payload could not be written, so that there never was a message."""
    error: PublishError | PayloadError | None = None


Parcel: TypeAlias = list[Outgoing | Published]


class Packer:
    """Cuts a stream of items into parcels; `in_window` of them may be under way at once.

    Raises `PayloadError` when made with a window that holds nothing.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise PayloadError(
                f"window={window!r}: at least 1 message has to be under way; nothing was published"
            )
        self.in_window = min(PARCELS_IN_WINDOW, window)
        self._size = window // self.in_window
        self._parcel: Parcel = []
        self._bytes = 0

    def add(self, item: Item) -> Parcel | None:
        """Put one item in; returns the parcel when that fills it."""
        message = _message(item)
        self._parcel.append(message)
        if isinstance(message, Outgoing):
            self._bytes += len(message.body)
        if len(self._parcel) < self._size and self._bytes < PARCEL_BYTES:
            return None
        return self.take()

    def take(self) -> Parcel:
        """What has been put in since the last full parcel."""
        parcel, self._parcel, self._bytes = self._parcel, [], 0
        return parcel


def messages_of(parcel: Parcel) -> list[Outgoing]:
    """The messages of a parcel; what could not be written is not among them."""
    return [message for message in parcel if isinstance(message, Outgoing)]


def results_of(parcel: Parcel, errors: list[PublishError | None]) -> Iterator[Published]:
    """One result an item, in order; `errors` has one entry for each of `messages_of`."""
    answers = iter(errors)
    for message in parcel:
        yield Published(message.message_id, next(answers)) if isinstance(message, Outgoing) else message


class Publishing(Iterator[Published]):
    """The results of `publish_many`, in order; messages leave while it is iterated, one window ahead."""

    def __init__(self, results: Iterator[Published]) -> None:
        self._results = results
        self._is_begun = False

    def __next__(self) -> Published:
        self._is_begun = True
        return next(self._results)

    def wait(self) -> int:
        """Publish them all and return how many they were.

        Raises the first error; of what stood within one window behind it, some may have been published: repeat
        with the same ids.
        """
        count = 0
        for result in self:
            if result.error is not None:
                raise result.error
            count += 1
        self._is_begun = True
        return count

    def __del__(self) -> None:
        if not self._is_begun:
            text = "publish_many(…) was never iterated, so nothing was published: write .wait() behind it, or a for loop"
            warnings.warn(text, RuntimeWarning, stacklevel=2, source=self)


def _message(item: Item) -> Outgoing | Published:
    if isinstance(item, Outgoing):
        return item if item.message_id else replace(item, message_id=uuid4().hex)
    queue, payload, *rest = item
    options = rest[0] if rest else {}
    try:
        return make_outgoing(queue, payload, **options)
    except PayloadError as error:
        return Published(options.get("id") or "", error)
