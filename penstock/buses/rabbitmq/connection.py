"""One supervised connection: opened, watched, opened again with full jitter; what failed is said in words.

aio-pika's own `connect_robust` waits a constant 5 s, repeats a refusal for ever with a log line, and comes back
without consumers (aio-pika#231, #632); so the plain connection is supervised here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import time
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

from aio_pika import Connection
from aio_pika.abc import ConnectionParameter
from aiormq.abc import AbstractConnection
from aiormq.exceptions import (
    AMQPConnectionError,
    AuthenticationError,
    ConnectionNotAllowed,
    ProbableAuthenticationError,
)
from yarl import URL

from penstock.app.backoff import Backoff
from penstock.app.messages import MAX_DELAY_S
from penstock.buses.log import BusLog
from penstock.buses.rabbitmq.broken import BROKEN, broken_is_an_error
from penstock.buses.rabbitmq.stream import OnBlocked, Wire
from penstock.config.bus import BusSection
from penstock.errors import BusUnavailable, ConfigurationError

#: The first wait is drawn from 0 to this; it doubles up to `bus.reconnect_cap_s`.
FIRST_WAIT_S: Final = 0.1
#: A connection that was lost sooner than this was not back at all.
STEADY_S: Final = 1.0
#: So many of those in a row make the wait grow, to 0.8 s; a network that is cut again and again is not waited for longer.
MOST_SHORT_LIVED: Final = 3
#: A goodbye that is not answered within so long is none.
CLOSE_S: Final = 3.0

_log = BusLog("penstock.buses.rabbitmq")


def _nothing() -> None:
    """What is done by default when the connection is down."""


class _SplitConnection(Connection):
    """aio-pika's connection, which hands a transport of ours on to aiormq."""

    PARAMETERS = (
        *Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )


class Supervised:
    """A connection that comes back; `on_up` is awaited with each new one, the first included.

    `on_down` is called whenever it cannot be used any more, `on_blocked` when the broker's memory or disk alarm begins
    for this connection and when it ends; with the connection the alarm is forgotten, the next one is told again.
    After how many connections in a row that were lost at once the wait grows no more is `most_short_lived`.
    """

    def __init__(
        self,
        purpose: str,
        section: BusSection,
        random: Random,
        on_up: Callable[[AbstractConnection], Awaitable[None]],
        *,
        on_down: Callable[[], None] = _nothing,
        on_blocked: OnBlocked = lambda _: None,
        most_short_lived: int = MOST_SHORT_LIVED,
    ) -> None:
        self._purpose = purpose
        self._section = section
        self._random = random
        self._on_up = on_up
        self._on_down = on_down
        self._on_blocked = on_blocked
        self._most_short_lived = most_short_lived
        self._url, self._tls = address(section)
        self._connection: Connection | None = None
        self._wire = Wire()
        self._keeper: asyncio.Task[None] | None = None
        self._is_up = False
        self.reconnects = 0
        """How often it came back."""
        self._backoff = Backoff(first_s=FIRST_WAIT_S, cap_s=min(section.reconnect_cap_s, MAX_DELAY_S))

    def __repr__(self) -> str:
        return f"<{self._purpose} {self} [{'up' if self.is_up else 'down'}]>"

    def __str__(self) -> str:
        # Parameters may hold secrets, too.
        return str(self._url.with_password(None).with_query(None))

    @property
    def is_up(self) -> bool:
        """True while it can be used."""
        return self._is_up

    @property
    def login(self) -> str:
        """The user that the broker vouches for."""
        return self._url.user or "guest"

    @property
    def underlay(self) -> AbstractConnection:
        """Aiormq's connection. Raises `BusUnavailable` while it is down."""
        connection = self._connection
        if connection is None or connection.transport is None or not self.is_up:
            msg = f"the {self._purpose} connection to the broker is down; it is being opened again"
            raise BusUnavailable(msg)
        return connection.transport.connection

    @property
    def wire(self) -> Wire:
        """Where its messages are taken and its acks are written; each new connection has one of its own."""
        return self._wire

    async def open(self) -> None:
        """Open it for the first time. Raises `BusUnavailable` in words."""
        if self._keeper is not None:
            return
        try:
            lost = await self._connect()
        except BROKEN as error:
            await self._drop()
            raise BusUnavailable(self._words(error)) from None
        except BaseException:
            await self._drop()
            raise
        self._keeper = asyncio.create_task(self._keep(lost), name=f"penstock-{self._purpose}")

    def open_soon(self) -> None:
        """Open it as after a loss: tried until it is there. Harmless when it is kept already."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._open_and_keep(), name=f"penstock-{self._purpose}")

    async def aclose(self) -> None:
        """Close it; harmless when repeated."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait((keeper,))
        await self._drop()

    async def _open_and_keep(self) -> None:
        await self._keep(await self._reconnect())

    async def _keep(self, lost: asyncio.Future[object]) -> None:
        short_lived = 0
        while True:
            up_s = time.monotonic()
            await asyncio.wait((lost,))
            # One that is let in and thrown out again is not back: without this it would be tried many times a second.
            is_steady = time.monotonic() - up_s >= STEADY_S
            short_lived = 0 if is_steady else min(short_lived + 1, self._most_short_lived)
            self._set_down()
            _log.warning(
                "connection to the broker lost: it is opened again; what runs goes on, what is published waits for it",
                purpose=self._purpose,
                why=_why(lost),
            )
            await self._drop()
            lost = await self._reconnect(short_lived)
            self.reconnects += 1
            _log.info("connection to the broker is back", purpose=self._purpose)

    async def _reconnect(self, short_lived: int = 0) -> asyncio.Future[object]:
        for failures in itertools.count(1 + short_lived):
            await asyncio.sleep(self._backoff.delay_s(failures, self._random))
            try:
                return await self._connect()
            except BusUnavailable as error:
                _log.warning(
                    "the broker cannot be reached yet: tried again", purpose=self._purpose, error=str(error)
                )
            except BROKEN as error:
                _log.warning(
                    "the connection to the broker broke while it was set up: tried again; unsettled messages wait on the broker",
                    purpose=self._purpose,
                    error=_said(error),
                )
            except Exception:  # noqa: BLE001 - a supervisor that ends leaves a service that never comes back
                _log.exception("a fault while the broker was reached: tried again", purpose=self._purpose)
            await self._drop()
        raise AssertionError  # pragma: no cover - the count does not end

    async def _connect(self) -> asyncio.Future[object]:
        self._wire = Wire(self._blocked)
        connection = _SplitConnection(self._url, ssl_context=self._tls, transport_factory=self._wire)
        # From here on it is closed with us, however far it comes.
        self._connection = connection
        try:
            with broken_is_an_error():
                await connection.connect(timeout=self._section.connect_timeout_s)
        except BROKEN as error:
            raise BusUnavailable(self._words(error)) from None
        if connection.transport is None:
            msg = "the broker closed the connection at once"
            raise BusUnavailable(msg)
        underlay = connection.transport.connection
        lost = underlay.closing
        self._is_up = True
        try:
            with broken_is_an_error():
                await self._on_up(underlay)
        except BaseException:
            self._set_down()
            raise
        return lost

    async def _drop(self) -> None:
        self._set_down()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*BROKEN), broken_is_an_error():
                try:
                    async with asyncio.timeout(CLOSE_S):
                        await connection.close()
                except TimeoutError:
                    self._wire.abort()

    def _set_down(self) -> None:
        if self._is_up:
            self._is_up = False
            self._on_down()

    def _blocked(self, reason: str | None) -> None:
        if reason is None:
            _log.info("the broker takes messages again", purpose=self._purpose)
        else:
            _log.warning(
                "the broker takes no messages: what is published waits, consuming and acks go on; free what it lacks",
                purpose=self._purpose,
                reason=reason,
            )
        self._on_blocked(reason)

    def _words(self, error: BaseException) -> str:
        where = f"{self._url.host}:{self._url.port or (5671 if self._url.scheme == 'amqps' else 5672)}"
        virtual_host = self._url.path[1:] or "/"
        if isinstance(error, AuthenticationError | ProbableAuthenticationError):
            return f"the broker at {where} refuses the login of user {self.login!r}; check bus.url"
        if isinstance(error, ConnectionNotAllowed):
            return f"the broker at {where} does not let user {self.login!r} into virtual host {virtual_host!r}; check bus.url"
        if isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError):
            return f"TLS with the broker at {where} failed: {self._scrubbed(error)}; check the host name and ?cafile="
        if isinstance(error, TimeoutError):
            return f"the broker at {where} did not answer within {self._section.connect_timeout_s:g} s"
        if isinstance(error, AMQPConnectionError | OSError):
            return f"no broker can be reached at {where}: {self._scrubbed(error)}; is it running?"
        return f"the broker at {where} cannot be used: {type(error).__name__}: {self._scrubbed(error)}"

    def _scrubbed(self, error: BaseException) -> str:
        text = str(error)
        return text.replace(self._url.password, "***") if self._url.password else text


def address(section: BusSection) -> tuple[URL, ssl.SSLContext | None]:
    """The URL with our heartbeat, and the TLS context for `amqps`. Raises `ConfigurationError`."""
    url = URL(section.url.get_secret_value())
    if "no_verify_ssl" in url.query:
        msg = "bus.url has no_verify_ssl: a broker whose certificate is not verified is not used; give ?cafile=/path/to/ca.pem"
        raise ConfigurationError(msg)
    if not url.host:
        msg = "bus.url has no host; write amqp://user:password@host:5672/vhost"
        raise ConfigurationError(msg)
    context = None
    if url.scheme == "amqps":
        cafile = url.query.get("cafile")
        try:
            context = ssl.create_default_context(cafile=cafile)
        except OSError as error:
            msg = f"bus.url names cafile={cafile!r}, which cannot be read: {error}"
            raise ConfigurationError(msg) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    return url.update_query(heartbeat=str(section.heartbeat_s)), context


def _why(lost: asyncio.Future[object]) -> str:
    if lost.cancelled():
        return "cancelled"
    error = lost.exception()
    return "closed" if error is None else _said(error)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
