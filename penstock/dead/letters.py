"""Dead letters for programs: `DeadLetters` lists them, sends them back and drops them, and blocks meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack

from pydantic import SecretStr, ValidationError

from penstock.app.messages import HeaderValue
from penstock.buses.connecting import connected
from penstock.buses.contract import Bus
from penstock.buses.publisher import place_of
from penstock.config import Settings, load_settings
from penstock.config.bus import BusSection
from penstock.config.limits import LimitsSection
from penstock.dead.choice import Choice, Moment, choose
from penstock.dead.letter import Letter
from penstock.dead.passes import Progress, Task, find, look
from penstock.dead.replaying import Replaying
from penstock.errors import ClientError, ConfigurationError, PublishError

T = TypeVar("T")


class Filters(TypedDict, total=False):
    """Which letters; they have to fit everything that is given."""

    id: str
    reason: str
    """A part of the reason, upper or lower case."""
    exception: str
    """The exception's type, with or without its module; `*` stands for anything."""
    since: Moment
    """Failed last at this time or later: a `datetime`, a `timedelta` ago, or a text such as `2h`, `2026-11-21T09:30` (UTC)."""
    until: Moment
    """Failed last before this time."""
    where: Mapping[str, Any]
    """Values in the payload by dotted path, such as `{"customer.id": 7}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up, and why."""

    id: str
    """The message's id; made from the body where it has none."""
    queue: str
    """The queue that it failed in."""
    reason: str
    exception: str
    """The exception's type; empty when it was none."""
    failed_at: datetime | None
    """When it failed last."""
    evidence: Mapping[str, HeaderValue] = field(repr=False)
    """Everything else that is known: `traceback`, `attempts`, `crash`, `crash-stack`, `replays`, `history`, …"""
    headers: Mapping[str, HeaderValue] = field(repr=False)
    """The message's own."""
    content_type: str | None
    body: bytes = field(repr=False)


class DeadLetters:
    """The dead letters of a bus, by the queue that they failed in. Each call connects, works and disconnects.

    `url` is `amqp://…`, `amqps://…` or `sqlite:///…`; without it the bus of the settings is meant. It needs the login
    of the service. Every call raises `BusUnavailable` when the bus cannot be reached or goes away, `BusError` when the
    queue has no dead-letter queue, `ConfigurationError` for a filter that says nothing, and `ClientError` in an event
    loop's thread.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        """Raises `ConfigurationError` for a URL that is no bus; opens nothing."""
        if settings is None and url is None:
            settings = load_settings()
        self._limits = LimitsSection() if settings is None else settings.limits
        self._bus = BusSection() if settings is None else settings.bus
        if url is not None:
            try:
                self._bus = BusSection.model_validate({**self._bus.model_dump(), "url": SecretStr(url)})
            except ValidationError as error:
                # Without the value met: it may hold a password.
                raise ConfigurationError(
                    f"the url of DeadLetters cannot be used: {error.errors()[0]['msg']}"
                ) from None

    def __repr__(self) -> str:
        return f"<DeadLetters {place_of(self._bus)}>"

    def count(self, queue: str, **filters: Unpack[Filters]) -> int:
        """How many fit; without a filter the bus says it at once."""
        choice = self._choice(filters)

        async def work(bus: Bus) -> int:
            origin, count = await find(bus, queue)
            if choice.is_everything:
                return count
            return len(await look(bus, origin, count, choice, limit=count, keep=_nothing))

        return self._run(work)

    def list(self, queue: str, *, limit: int = 100, **filters: Unpack[Filters]) -> Sequence[DeadLetter]:
        """The first `limit` that fit, the oldest first; they stay where they are."""
        choice = self._choice(filters)

        async def work(bus: Bus) -> Sequence[DeadLetter]:
            origin, count = await find(bus, queue)
            return await look(bus, origin, count, choice, limit=limit, keep=_shown)

        return self._run(work)

    def get(self, queue: str, id: str) -> DeadLetter | None:  # noqa: A002 - the public word
        """The first one with this id; None when there is none."""
        return next(iter(self.list(queue, limit=1, id=id)), None)

    def replay(
        self,
        queue: str,
        *,
        rate: float | None = None,
        limit: int | None = None,
        on_progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Send those that fit back to where they failed, their attempts reset; returns how many were confirmed.

        `rate` is letters a second. Each is confirmed before it stops being a dead letter, so an interruption loses
        nothing and a second call goes on. `on_progress` is called with how many were looked at and how many fitted.
        Raises the first `PublishError`; those that were not sent stay.
        """
        if rate is not None and not rate > 0:
            raise ConfigurationError(
                f"rate={rate!r}: a positive number of letters a second; nothing was done"
            )
        choice = self._choice(filters)

        async def work(bus: Bus) -> int:
            replaying = Replaying(bus, timeout_s=self._bus.confirm_timeout_s, rate=rate)
            origin, count = await find(bus, queue)
            task = Task(bus, origin, count, choice, replaying.send, limit)
            replaying.drive(task)
            await self._finish(task, on_progress)
            return sum(replaying.sent.values())

        return self._run(work)

    def drop(
        self,
        queue: str,
        *,
        everything: bool = False,
        limit: int | None = None,
        on_progress: Progress | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Forget those that fit, for good; returns how many. Without a filter only when `everything` is true."""
        choice = self._choice(filters)
        if choice.is_everything and not everything:
            raise ConfigurationError(
                "drop() without a filter forgets every dead letter: say everything=True; nothing was dropped"
            )

        async def work(bus: Bus) -> int:
            dropped = 0

            async def forget(letters: Sequence[Letter]) -> PublishError | None:
                nonlocal dropped
                dropped += len(letters)
                return await forget_all(bus, letters)

            origin, count = await find(bus, queue)
            await self._finish(Task(bus, origin, count, choice, forget, limit), on_progress)
            return dropped

        return self._run(work)

    async def _finish(self, task: Task, on_progress: Progress | None) -> None:
        task.pass_s = self._bus.consumer_timeout_s / 2
        if on_progress is not None:
            task.on_progress = on_progress
        error = await task.run()
        if error is not None:
            raise error

    def _choice(self, filters: Filters) -> Choice:
        return choose(**filters, body_bytes=self._limits.body_bytes)

    def _run(self, work: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._connect_and(work))
        raise ClientError(
            "DeadLetters waits, and this thread runs an event loop, which would stand still: "
            "await asyncio.to_thread(…); nothing was done"
        )

    async def _connect_and(self, work: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        async with connected(self._bus) as bus:
            return await work(bus)


async def forget_all(bus: Bus, letters: Sequence[Letter]) -> PublishError | None:
    """Treats a round by dropping it; refuses nothing."""
    for letter in letters:
        letter.forget()
    await bus.flush()
    return None


def _nothing(_: Letter) -> None:
    """Counted, not kept."""


def _shown(letter: Letter) -> DeadLetter:
    own = letter.own_headers()
    return DeadLetter(
        id=letter.id,
        queue=letter.origin,
        reason=letter.reason,
        exception=letter.exception,
        failed_at=letter.failed_at,
        evidence=letter.evidence(),
        headers=own,
        content_type=letter.delivery.content_type,
        body=letter.delivery.body,
    )
