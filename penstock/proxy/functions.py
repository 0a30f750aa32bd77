"""A function on its way to a subprocess: its module and name, never its code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from penstock.errors import ConfigurationError


def name_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Module and qualified name under which a subprocess can import the function.

    Raises `ConfigurationError` for one that cannot be found by name: a lambda, a function inside a function, a method of
    an object, or anything of the main module, which a subprocess never imports.
    """
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not module or not name or getattr(function, "__self__", None) is not None:
        raise _refused(function, "it is no plain function of a module")
    if "<lambda>" in name:
        raise _refused(function, "a lambda has no name")
    if "<locals>" in name:
        raise _refused(function, "it is defined inside another function")
    if module == "__main__":
        raise _refused(function, "it is in the main module, which a subprocess never imports")
    if _found(sys.modules.get(module), name) is not function:
        raise _refused(function, f"{module}.{name} is something else")
    return module, name


def function_of(module: str, name: str) -> Callable[..., Any]:
    """The function, imported. Raises what its import raises."""
    found: Callable[..., Any] | None = _found(import_module(module), name)
    if found is None:
        msg = f"module {module} has no {name} any more"
        raise ImportError(msg)
    return found


def _found(place: Any, name: str) -> Any:
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def _refused(function: Any, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{function!r} cannot run in a subprocess: {why}. Write a function at the top of a module of its own; what it needs "
        "is given as arguments"
    )
