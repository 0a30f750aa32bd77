"""Channel calls by kind, counted on their way to the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Raw

from penstock.channels.service import Caller, Service

#: A handler's code can ask for any method: beyond so many kinds they are counted together.
MOST_KINDS: Final = 64
OTHERS: Final = "others"


class Calls:
    """Counts what passes through the services that it made; written by the loop only."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        """By service and method."""

    def __repr__(self) -> str:
        return f"<Calls [{sum(self.counts.values())} of {len(self.counts)} kinds]>"

    def watch(self, services: Mapping[str, Service]) -> dict[str, Service]:
        """The same services, counted."""
        return {name: _Counted(name, service, self) for name, service in services.items()}

    def note(self, kind: tuple[str, str]) -> None:
        """One call."""
        if kind not in self.counts and len(self.counts) >= MOST_KINDS:
            kind = (kind[0], OTHERS)
        self.counts[kind] = self.counts.get(kind, 0) + 1


class _Counted:
    """A service, and the count of its calls."""

    def __init__(self, name: str, service: Service, calls: Calls) -> None:
        self._name = name
        self._service = service
        self._calls = calls

    async def call(self, method: str, arguments: Raw, caller: Caller) -> Any:
        self._calls.note((self._name, method))
        return await self._service.call(method, arguments, caller)

    def forget(self, caller: Caller) -> None:
        self._service.forget(caller)
