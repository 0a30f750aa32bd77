"""The endpoint: a socket, a thread, and an event loop of its own, apart from the reactor's.

What bounds it: so many connections at once, so long without a whole request, so large a request's head.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from typing import Final

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock.config.http import HttpSection
from penstock.errors import ConfigurationError
from penstock.health.answers import Answers
from penstock.health.sources import Sources

#: A connection more is closed at once; a Prometheus and some probes need a handful.
MOST_CONNECTIONS: Final = 64
#: A connection that has not brought a request within so long is closed.
REQUEST_S: Final = 5.0
#: A connection has one request, and is over after so long whatever it is doing: a peer that does not read holds none.
CONNECTION_S: Final = 30.0
HEAD_BYTES: Final = 16 * 1024
#: The port may belong to the service that this one takes over from: tried again until it is free.
BIND_AGAIN_S: Final = 1.0
#: A stop waits so long for the thread.
STOP_S: Final = 2.0

_log = structlog.get_logger("penstock.health")


class Endpoint:
    """Answers on `section.port`, from `start` until `stop`."""

    def __init__(self, section: HttpSection, sources: Sources) -> None:
        assert section.port is not None
        self._host = section.host
        self._port = section.port
        self._answers = Answers(sources, section.token)
        self._ended = threading.Event()
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Endpoint {self._host}:{self._port} [{'started' if self._thread else 'not started'}]>"

    def start(self) -> None:
        """Listen and answer; a port that somebody else has is waited for.

        Raises `ConfigurationError` when it can never be listened on.
        """
        listening = self._bind()
        if listening is None:
            _log.error(
                "the endpoint's port is taken: probes and metrics of this service wait until it is free; stop who has it, "
                "or set another http.port",
                host=self._host,
                port=self._port,
            )
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="penstock-endpoint", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close every connection; harmless when repeated."""
        self._ended.set()
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(STOP_S)

    def _bind(self) -> socket.socket | None:
        try:
            found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = found[0]
            listening = socket.socket(family, kind, protocol)
        except OSError as error:
            raise self._refused(error) from error
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(MOST_CONNECTIONS)
        except OSError as error:
            listening.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise self._refused(error) from error
        _log.info("probes and metrics are answered", host=self._host, port=listening.getsockname()[1])
        return listening

    def _refused(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"http.host {self._host} and http.port {self._port} cannot be listened on ({error.strerror or error}); nothing is "
            "consumed; set others"
        )

    def _run(self, listening: socket.socket | None) -> None:
        while listening is None:
            if self._ended.wait(BIND_AGAIN_S):
                return
            try:
                listening = self._bind()
            except ConfigurationError as error:
                _log.error("the endpoint cannot listen, tried again", error=str(error))
        config = uvicorn.Config(
            self._answers.application(),
            http=_Bounded,
            ws="none",
            lifespan="off",
            log_config=None,
            # One line a piece of garbage would be a log that anybody can fill.
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            headers=[("connection", "close")],
            timeout_graceful_shutdown=1,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )
        self._server = uvicorn.Server(config)
        if self._ended.is_set():
            self._server.should_exit = True
        try:
            # asyncio's own loop, whatever the reactor runs on: nothing here is in a hurry.
            asyncio.run(self._server.serve(sockets=[listening]))
        except Exception:  # noqa: BLE001 - the service does not stand and fall with its probes
            _log.exception("the endpoint ended by a fault of Penstock's own; the service goes on without it")
        finally:
            listening.close()


class _Bounded(H11Protocol):
    """One connection, if there is room for it."""

    _timers: tuple[asyncio.TimerHandle, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._timers = (
            self.loop.call_later(REQUEST_S, self._end_if_silent),
            self.loop.call_later(CONNECTION_S, transport.abort),
        )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in self._timers:
            timer.cancel()

    def _end_if_silent(self) -> None:
        cycle: object | None = self.cycle
        if cycle is None:
            self.transport.abort()
