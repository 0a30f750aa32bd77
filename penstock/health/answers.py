"""What the endpoint answers: `/live`, `/ready`, `/metrics`, and who may read more than a status code.

Nothing here runs on the reactor's loop, so that a loop that stands still has somebody to say so.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from penstock.health.exposition import Exposition, Seen
from penstock.health.sources import Sources
from penstock.reactor.figures import Figures

T = TypeVar("T")

#: The reactor's loop has so long to answer; then it does not count as ready, and metrics are the last ones.
ASK_S: Final = 1.0
_FRESH: Final = {"Cache-Control": "no-store"}


class Answers:
    """The three answers, as coroutines of the endpoint's own loop."""

    def __init__(self, sources: Sources, token: SecretStr | None) -> None:
        self._sources = sources
        self._token = None if token is None else token.get_secret_value().encode()
        self._exposition = Exposition(sources.application, sources.watch)
        self._figures: Figures | None = None
        self._seen_unix_s = time.time()

    def application(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route("/live", self.live),
                Route("/ready", self.ready),
                Route("/metrics", self.metrics),
            ]
        )

    async def live(self, request: Request) -> Response:
        """200 while the loop turns."""
        lag_s = self._sources.watch.lag_s()
        is_live = lag_s <= self._sources.watch.blocked_s
        state = "live" if is_live else "blocked"
        return self._state(request, state, 200 if is_live else 503, loop_lag_s=round(lag_s, 3))

    async def ready(self, request: Request) -> Response:
        """200 while messages are handled."""
        why_not, warnings = await self._readiness()
        details = {"warnings": list(warnings)} if warnings else {}
        if why_not:
            return self._state(request, "not ready", 503, why=list(why_not), **details)
        return self._state(request, "ready", 200, **details)

    async def metrics(self, request: Request) -> Response:
        """What Prometheus reads."""
        if not self._may_read(request):
            return PlainTextResponse(
                "a token is needed\n", 401, headers={**_FRESH, "WWW-Authenticate": "Bearer"}
            )
        sources = self._sources
        # Both in one turn of the loop: what the figures show and what is missing belong together.
        answer = (
            None
            if sources.watch.is_blocked
            else await self._ask(lambda: (sources.figures(), sources.readiness.why_not()))
        )
        why_not: tuple[str, ...] = ("the loop does not answer",)
        if answer is not None:
            self._figures, why_not = answer
            self._seen_unix_s = time.time()
        seen = Seen(
            self._figures,
            self._seen_unix_s,
            why_not,
            None if sources.database is None else sources.database.why_not(),
            has_database=sources.database is not None,
        )
        text, content_type = self._exposition.write(seen, request.headers.get("accept", ""))
        return Response(text, headers={**_FRESH, "Content-Type": content_type})

    async def _readiness(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is missing, and what should be known."""
        watch, readiness = self._sources.watch, self._sources.readiness
        answer = (
            None if watch.is_blocked else await self._ask(lambda: (readiness.why_not(), readiness.warnings()))
        )
        return answer or ((f"the loop has not turned for {watch.lag_s():.1f} s",), ())

    async def _ask(self, question: Callable[[], T]) -> T | None:
        """Ask on the reactor's loop; None when it does not answer in time, or is closed."""
        answer: Future[T] = Future()

        def run() -> None:
            if answer.set_running_or_notify_cancel():
                try:
                    answer.set_result(question())
                except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
                    answer.set_exception(error)

        try:
            self._sources.loop.call_soon_threadsafe(run)
        except RuntimeError:
            return None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), ASK_S)
        except TimeoutError:
            return None

    def _state(self, request: Request, state: str, code: int, **details: Any) -> Response:
        shown = details if self._may_read(request) else {}
        return JSONResponse({"state": state, **shown}, code, headers=_FRESH)

    def _may_read(self, request: Request) -> bool:
        if self._token is None:
            return True
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(sent.strip().encode(), self._token)
