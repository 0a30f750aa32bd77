"""What every test shares: a broker, names of its own, and the watch over what it leaves behind.

`amqp_url`     an empty virtual host on a broker that all tests share
`queue_prefix` a name that no other test has; with PENSTOCK_TEST_AMQP_URL the virtual host is not empty
`own_broker`   a broker for this test alone, to be killed, stopped, frozen and reconfigured
`mariadb`, `postgresql`          a server that all tests share; `mariadb_url`, `postgresql_url`: an empty database on it
`own_mariadb`, `own_postgresql`  a server for this test alone, to be killed, stopped and frozen
`closed_port`  a port of this machine that refuses connections
"""

import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import structlog

from tests.broker import Broker, NoBrokerError
from tests.choose_broker import new_broker
from tests.leaks import Belongings, carrying
from tests.server_process import NoServerError
from tests.servers import MariaDBServer, PostgreSQLServer, Server, Template, database_on
from tests.virtual_hosts import OneVirtualHost, VirtualHosts

ELSEWHERE = "PENSTOCK_TEST_AMQP_URL"
RUN = "PENSTOCK_TEST_RUN"
#: A fork server reads the end of its reactor from a pipe, and is gone a moment after it.
ENDED_S = 2.0


def pytest_configure() -> None:
    """Whoever starts the tests in the background ignores signals, and programs inherit that: tests send them."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _no_stray_process() -> Iterator[None]:
    """Every process of this run carries its mark, so that one whose parent was killed is found all the same."""
    mark = secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            # The desk's own settings are nobody's test.
            if name.startswith("PENSTOCK_") and name not in {ELSEWHERE, RUN}:
                patch.delenv(name)
        patch.setenv(RUN, mark)
        yield
    deadline_s = time.monotonic() + ENDED_S
    while (left := carrying(RUN, mark)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not left, f"processes outlive the run: {left}"


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    before = Belongings()
    yield
    left = before.left_behind()
    assert not left, f"the test leaves behind: {left}"


@pytest.fixture(autouse=True)
def _structlog_as_it_comes() -> Iterator[None]:
    """A test that configures structlog does so for itself alone; the next one in this process may be anybody's."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The private broker behind `amqp_url`, for `ctl`; not to be killed, nor used by another URL."""
    before = Belongings()
    with _new_broker() as private:
        # It starts inside the first test that asks for it, and outlives that test.
        before.share_new_processes()
        yield private


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A private broker for this test alone (boots in 4 s)."""
    with _new_broker() as private:
        yield private


@pytest.fixture(scope="session")
def _virtual_hosts(request: pytest.FixtureRequest) -> VirtualHosts | OneVirtualHost:
    elsewhere = os.environ.get(ELSEWHERE)
    if elsewhere:
        return OneVirtualHost(elsewhere)
    return VirtualHosts(request.getfixturevalue("broker"))


@pytest.fixture
def amqp_url(_virtual_hosts: VirtualHosts | OneVirtualHost) -> Iterator[str]:
    """The AMQP URL of an empty virtual host; PENSTOCK_TEST_AMQP_URL, as it is, when that is set."""
    url = _virtual_hosts.take()
    yield url
    _virtual_hosts.give_back(url)


@pytest.fixture
def queue_prefix(request: pytest.FixtureRequest) -> str:
    """Begins the names of this test's queues and exchanges, and of nobody else's."""
    name = re.sub(r"\W+", "-", request.node.name)[:60]
    return f"{name}-{secrets.token_hex(4)}."


def _new_broker() -> Broker:
    try:
        return new_broker()
    except NoBrokerError as missing:
        # A run without a broker proves nothing: it ends here, and fails.
        pytest.exit(str(missing), returncode=1)


def _template(kind: type[Server]) -> Iterator[Template]:
    before = Belongings()
    try:
        template = Template(kind)
    except NoServerError as missing:
        # As without a broker: skipped tests would look like a promise kept.
        pytest.exit(str(missing), returncode=1)
    before.share_new_processes()
    yield template
    template.close()


def _shared(kind: type[Server], template: Template) -> Iterator[Server]:
    before = Belongings()
    with kind(template) as server:
        before.share_new_processes()
        yield server


@pytest.fixture(scope="session")
def _mariadb_template() -> Iterator[Template]:
    yield from _template(MariaDBServer)


@pytest.fixture(scope="session")
def _postgresql_template() -> Iterator[Template]:
    yield from _template(PostgreSQLServer)


@pytest.fixture(scope="session")
def mariadb(_mariadb_template: Template) -> Iterator[Server]:
    """The MariaDB that tests share; not to be stopped."""
    yield from _shared(MariaDBServer, _mariadb_template)


@pytest.fixture(scope="session")
def postgresql(_postgresql_template: Template) -> Iterator[Server]:
    """The PostgreSQL that tests share; not to be stopped."""
    yield from _shared(PostgreSQLServer, _postgresql_template)


@pytest.fixture
def mariadb_url(mariadb: Server) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of MariaDB, which is this test's own."""
    with database_on(mariadb) as url:
        yield url


@pytest.fixture
def postgresql_url(postgresql: Server) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database of PostgreSQL, which is this test's own."""
    with database_on(postgresql) as url:
        yield url


@pytest.fixture
def own_mariadb(_mariadb_template: Template) -> Iterator[Server]:
    """A MariaDB for this test alone (boots in half a second)."""
    with MariaDBServer(_mariadb_template) as server:
        yield server


@pytest.fixture
def own_postgresql(_postgresql_template: Template) -> Iterator[Server]:
    """A PostgreSQL for this test alone (boots in half a second)."""
    with PostgreSQLServer(_postgresql_template) as server:
        yield server


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else gets it, and refuses connections."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
