"""What of a driver does not cross the channel, said in one way by all three packages.

Who looks such a name up gets the driver's `NotSupportedError` with the reason. It is an `AttributeError` too, so that
`hasattr` says no, as PEP 249 prefers; a manner of a call that does cross (`scroll` backwards) is refused when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn


@dataclass(frozen=True, slots=True)
class Refusals:
    """A driver's, each with its reason."""

    error: type[Exception]
    """The driver's NotSupportedError, which is an AttributeError as well."""
    names: Mapping[str, str]
    """Attributes of its connections and cursors."""
    manners: Mapping[str, str] = field(default_factory=dict)
    """What is not an attribute."""

    def refuse(self, what: str) -> NoReturn:
        """Raises `error` with the reason."""
        reason = self.names.get(what) or self.manners[what]
        raise self.error(f"{what} does not cross the database channel: {reason}")


class Refusing:
    """A connection or cursor some of whose driver's attributes are refused."""

    refusals: ClassVar[Refusals]

    def __getattr__(self, name: str) -> Any:
        if name in self.refusals.names:
            self.refusals.refuse(name)
        msg = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(msg)
