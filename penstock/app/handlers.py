"""A handler: a plain function, the queue it serves and the options it was declared with."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, update_wrapper
from importlib import import_module
from typing import Any, Generic, Literal, ParamSpec, TypeAlias, TypeVar, get_args

from penstock.app.backoff import Backoff
from penstock.app.context import AsyncContext, Context
from penstock.app.messages import HeaderValue
from penstock.app.queues import QueueDeclaration
from penstock.config.database import IsolationLevel
from penstock.errors import ClientError, HandlerError

P = ParamSpec("P")
R = TypeVar("R")

ContentType: TypeAlias = Literal["auto", "json", "raw"]
#: Payload annotations that take the body as it is.
RAW_TYPES = (bytes, str)
MAX_PARAMETERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerOptions:
    """What `@app.handler(...)` was given beside the queue."""

    timeout_s: float | None = None
    """Soft deadline; the process is killed `workers.kill_after_s` later."""
    retry: Backoff = field(default_factory=Backoff)
    prefetch: int | None = None
    isolation: IsolationLevel | None = None
    """Of the transaction on `ctx.connection` and `ctx.session`; None is what `database.isolation_level` says."""
    content_type: ContentType = "auto"
    """json: the body is JSON whatever the annotation; raw: never decoded; auto: as the annotation says."""

    def __post_init__(self) -> None:
        if self.timeout_s is not None and self.timeout_s <= 0:
            msg = f"timeout={self.timeout_s!r}: a deadline is a positive number of seconds, or None"
            raise HandlerError(msg)
        if self.prefetch is not None and not 1 <= self.prefetch <= 65535:
            msg = f"prefetch={self.prefetch!r} is not between 1 and 65535"
            raise HandlerError(msg)
        if self.isolation is not None and self.isolation not in get_args(IsolationLevel):
            msg = f"isolation={self.isolation!r} is not known; write one of {', '.join(map(repr, get_args(IsolationLevel)))}"
            raise HandlerError(msg)
        if self.content_type not in ("auto", "json", "raw"):
            msg = f"content_type={self.content_type!r} is not known; write 'auto', 'json' or 'raw'"
            raise HandlerError(msg)


class Handler(Generic[P, R]):
    """A decorated handler: still the plain function when called, and it knows its queue.

    `payload_type` is the annotation of the first parameter, `wants_context` whether there is a second.
    """

    def __init__(self, function: Callable[P, R], queue: QueueDeclaration, options: HandlerOptions) -> None:
        # One function may serve two queues; what is called is the function, or an async one would not be awaited.
        self.function: Callable[P, R] = function.function if isinstance(function, Handler) else function
        function = self.function
        if isinstance(function, type) or not hasattr(function, "__qualname__"):
            msg = f"the handler of queue {queue.name!r} is {function!r}; write a function: def or async def"
            raise HandlerError(msg)
        self.queue = queue
        self.options = options
        # Also inside a decorator that hands the coroutine on: not awaited, its message would be acked and lost.
        self.is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
        self.name = f"{function.__module__}.{function.__qualname__}"
        _check_signature(self)
        if self.is_async and options.isolation is not None:
            msg = f"handler {self.name} is async and says isolation={options.isolation!r}: it has no ctx.connection to isolate"
            raise HandlerError(msg)
        update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function; nothing is published."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Handler {self.name} on {self.queue.name!r}>"

    @cached_property
    def payload_type(self) -> Any:
        """Annotation of the payload; `Any` without one. Raises `HandlerError` when a name in it is unknown."""
        name = next(iter(inspect.signature(self.function).parameters))
        try:
            return typing.get_type_hints(self.function, include_extras=True).get(name, Any)
        except (NameError, TypeError) as error:
            msg = f"handler {self.name}: its annotations cannot be read: {error}; import the names where the module is loaded"
            raise HandlerError(msg) from error

    @cached_property
    def wants_context(self) -> bool:
        """True when the function takes the context as its second parameter."""
        return len(inspect.signature(self.function).parameters) == MAX_PARAMETERS

    @property
    def is_raw(self) -> bool:
        """True when the body reaches the handler undecoded."""
        if self.options.content_type == "auto":
            return self.payload_type in RAW_TYPES
        return self.options.content_type == "raw"

    def send(
        self,
        payload: Any,
        *,
        id: str | None = None,  # noqa: A002 - the public word
        headers: Mapping[str, HeaderValue] | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> str:
        """Publish `payload` to this handler's queue over the bus in the settings; returns the message's id.

        Raises what `Client.publish` raises. It may be called from any thread; not from a coroutine, and not in a
        worker process, which has `ctx.bus` and is told of no other bus.
        """
        if _is_worker:
            raise ClientError(
                f"{self.name}.send(…) in a worker process: publish with ctx.bus.publish({self.queue.name!r}, payload), "
                "which leaves after the commit, or with ctx.bus.publish_now. Nothing was published"
            )
        # By name, because the client stands above this layer; a program that never sends never loads it.
        client = import_module("penstock.client").default_client()
        sent: str = client.publish(
            self.queue.name, payload, id=id, headers=headers, delay=delay, timeout=timeout
        )
        return sent


_is_worker = False


def refuse_send() -> None:
    """From here on this process is a worker: what it sends by itself could reach another bus than its service's."""
    global _is_worker  # noqa: PLW0603 - for good, and for the whole process
    _is_worker = True


AnyHandler: TypeAlias = Handler[..., Any]


def _check_signature(handler: AnyHandler) -> None:
    function = handler.function
    parameters = list(inspect.signature(function).parameters.values())
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        msg = f"handler {handler.name} is a generator; a handler returns, and publishes with ctx.bus.publish"
        raise HandlerError(msg)
    usable = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not 1 <= len(parameters) <= MAX_PARAMETERS or any(p.kind not in usable for p in parameters):
        msg = (
            f"handler {handler.name}{inspect.signature(function)}: a handler takes the payload and, "
            "if it wants, the context: def handler(payload: Order, ctx: Context) -> None"
        )
        raise HandlerError(msg)
    if len(parameters) == MAX_PARAMETERS:
        annotated = parameters[1].annotation
        wrong = Context if handler.is_async else AsyncContext
        if annotated in (wrong, wrong.__name__):
            right = AsyncContext if handler.is_async else Context
            msg = f"handler {handler.name}: its context is {right.__name__}, not {wrong.__name__}"
            raise HandlerError(msg)
