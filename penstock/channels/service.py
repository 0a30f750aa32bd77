"""A communication channel's end on the loop: a named service, and who is calling it."""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Raw


class Caller:
    """One worker incarnation, or one async delivery, as a service sees it; compared by identity."""

    __slots__ = ("is_worker", "name")

    def __init__(self, name: str, *, is_worker: bool = False) -> None:
        self.name = name
        self.is_worker = is_worker
        """It asks one thing at a time, and does nothing else before it is answered."""

    def __repr__(self) -> str:
        return f"<Caller {self.name}>"


class Service(Protocol):
    """What is registered under a name and called from any worker."""

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:
        """Answer one call with a value that msgpack can carry.

        Raises a `PenstockError` to refuse it in words. It is cancelled when the caller dies.
        """
        ...

    def forget(self, caller: Caller) -> None:
        """The caller is gone: free what it still holds; may be called for a caller never seen."""
        ...
