"""`App` and `Router`: where handlers and worker hooks are declared and collected."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from types import SimpleNamespace
from typing import ParamSpec, TypeAlias, TypeVar

from penstock.app.backoff import NO_RETRY, Backoff
from penstock.app.handlers import AnyHandler, ContentType, Handler, HandlerOptions
from penstock.app.queues import Binding, QueueDeclaration, QueueType
from penstock.config.database import IsolationLevel
from penstock.errors import HandlerError

P = ParamSpec("P")
R = TypeVar("R")
Hook: TypeAlias = Callable[[SimpleNamespace], object]
H = TypeVar("H", bound=Hook)


class Router:
    """Handlers of one module, declared without an application; `app.include(router)` brings them in."""

    def __init__(self) -> None:
        self._handlers: dict[str, AnyHandler] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{len(self._handlers)} handlers]>"

    @property
    def handlers(self) -> tuple[AnyHandler, ...]:
        """All handlers, in order of declaration."""
        return tuple(self._handlers.values())

    def handler(
        self,
        queue: str,
        *,
        timeout: float | None = None,
        retry: Backoff | None = Backoff(),  # noqa: B008 - frozen
        prefetch: int | None = None,
        bind: Sequence[Binding] = (),
        type: QueueType = "quorum",  # noqa: A002 - the public word
        declare: bool = True,
        max_priority: int | None = None,
        content_type: ContentType = "auto",
        isolation: IsolationLevel | None = None,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]:
        """Declare the function below as the handler of `queue`.

        `timeout` is a deadline in seconds; `retry=None` makes the first failure a dead letter; `declare=False`
        uses a queue that exists as it is; `isolation` is for `ctx.connection` and `ctx.session`. Raises `HandlerError` when a word of it cannot be.
        """
        if callable(queue):
            msg = f"@app.handler above {queue!r} names no queue; write @app.handler('orders.created')"
            raise HandlerError(msg)
        declaration = QueueDeclaration(
            name=queue, type=type, declare=declare, max_priority=max_priority, bindings=tuple(bind)
        )
        options = HandlerOptions(
            timeout_s=timeout,
            retry=retry or NO_RETRY,
            prefetch=prefetch,
            content_type=content_type,
            isolation=isolation,
        )

        def register(function: Callable[P, R]) -> Handler[P, R]:
            handler = Handler(function, declaration, options)
            self._add(handler)
            return handler

        return register

    def _add(self, handler: AnyHandler) -> None:
        known = self._handlers.get(handler.queue.name)
        if known is not None and known is not handler:
            msg = (
                f"queue {handler.queue.name!r} has two handlers, {known.name} and {handler.name}; "
                "a message can go to one only: give one of them a queue of its own, bound to the same exchange"
            )
            raise HandlerError(msg)
        self._handlers[handler.queue.name] = handler


class App(Router):
    """The application: its handlers, and what runs when a worker starts and stops."""

    def __init__(self) -> None:
        super().__init__()
        self._start_hooks: list[Hook] = []
        self._stop_hooks: list[Hook] = []

    @property
    def start_hooks(self) -> tuple[Hook, ...]:
        """Run in each worker after its connection is open, in order of declaration."""
        return tuple(self._start_hooks)

    @property
    def stop_hooks(self) -> tuple[Hook, ...]:
        """Run in each worker before its connection is closed, last declared first."""
        return tuple(reversed(self._stop_hooks))

    def on_worker_start(self, hook: H) -> H:
        """Run the function below once in every worker; what it puts on its argument is `ctx.state`."""
        self._start_hooks.append(hook)
        return hook

    def on_worker_stop(self, hook: H) -> H:
        """Run the function below once when a worker ends in order, with the same state."""
        self._stop_hooks.append(hook)
        return hook

    def include(self, source: Router | str) -> None:
        """Bring in a router, or every router in the modules that a pattern such as `"shop.*"` names.

        A plain module name takes that module; `package.*` takes every module below the package. Raises
        `HandlerError` when nothing is found, or a queue has two handlers.
        """
        if isinstance(source, Router):
            for handler in source.handlers:
                self._add(handler)
            return
        modules = list(_modules(source))
        routers = {id(r): r for m in modules for r in vars(import_module(m)).values() if type(r) is Router}
        if not routers:
            found = ", ".join(modules) or "no module"
            msg = f"include({source!r}): no Router in {found}; write router = Router() in the module"
            raise HandlerError(msg)
        for router in routers.values():
            self.include(router)

    def select(self, patterns: Sequence[str]) -> tuple[AnyHandler, ...]:
        """The handlers whose queue matches one of the patterns (`orders.*`), all without patterns.

        Raises `HandlerError` when a pattern matches nothing.
        """
        if not patterns:
            return self.handlers
        for pattern in patterns:
            if not any(fnmatchcase(h.queue.name, pattern) for h in self.handlers):
                known = ", ".join(sorted(self._handlers)) or "none"
                msg = f"--only {pattern!r} matches no queue; the application has: {known}"
                raise HandlerError(msg)
        return tuple(h for h in self.handlers if any(fnmatchcase(h.queue.name, p) for p in patterns))


def _modules(pattern: str) -> Iterator[str]:
    name, star, rest = pattern.partition(".*")
    if rest or "*" in name:
        msg = f"include({pattern!r}): write a module ('shop.orders') or everything below a package ('shop.*')"
        raise HandlerError(msg)
    try:
        package = import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        msg = f"include({pattern!r}): there is no module {error.name!r}"
        raise HandlerError(msg) from error
    yield name
    if star:
        for found in pkgutil.walk_packages(getattr(package, "__path__", ()), prefix=f"{name}."):
            yield found.name


def load_app(address: str) -> App:
    """Import `module:attribute` (attribute defaults to `app`) and return the `App` there.

    Raises `HandlerError` in words when it is not there or is something else.
    """
    module_name, _, attribute = address.partition(":")
    attribute = attribute or "app"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        msg = f"application {address!r}: there is no module {error.name!r} here; run it from the folder that has it"
        raise HandlerError(msg) from error
    found = getattr(module, attribute, None)
    if not isinstance(found, App):
        apps = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f"write {module_name}:{apps[0]}" if apps else "write app = App() in it"
        msg = f"application {address!r}: {module_name} has no App named {attribute!r}; {hint}"
        raise HandlerError(msg)
    return found
