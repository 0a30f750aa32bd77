"""A short way to a handler for the tests of what is done with one."""

from collections.abc import Callable
from typing import Any

from penstock import App
from penstock.app.handlers import AnyHandler


def declared(function: Callable[..., Any], queue: str = "work", **options: Any) -> AnyHandler:
    return App().handler(queue, **options)(function)


def taking(annotation: Any, **options: Any) -> AnyHandler:
    """A handler whose payload is annotated so."""

    def handler(payload: Any) -> None: ...

    handler.__annotations__["payload"] = annotation
    return declared(handler, **options)
