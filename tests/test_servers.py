"""The database servers that other tests trust: they keep what was committed, and leave nothing behind."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import create_engine, text

from tests.servers import Server


@pytest.fixture(params=["mariadb", "postgresql"])
def own_server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(f"own_{request.param}")
    return server


@pytest.fixture(params=["mariadb", "postgresql"])
def shared_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


def test_a_test_has_an_empty_database(shared_url: str) -> None:
    engine = create_engine(shared_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INT)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    engine.dispose()


def test_a_killed_server_comes_back_with_what_was_committed_and_nothing_else(own_server: Server) -> None:
    url = own_server.new_database()
    own_server.execute("CREATE TABLE t (n INT)", url=url)
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        connection.commit()
        connection.execute(text("INSERT INTO t VALUES (2)"))
        own_server.kill()
        connection.invalidate()
    engine.dispose()

    own_server.start()

    assert own_server.execute("SELECT n FROM t", url=url) == [(1,)]


def test_a_restart_closes_the_connections_that_it_finds(own_server: Server) -> None:
    url = own_server.new_database()
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        assert len(own_server.connections(url)) == 1

        own_server.restart()

        assert own_server.connections(url) == []
        connection.invalidate()
    engine.dispose()


def test_a_connection_can_be_killed_from_the_server_side(own_server: Server) -> None:
    url = own_server.new_database()
    engine = create_engine(url)
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        (number,) = own_server.connections(url)

        own_server.kill_connection(number)

        with pytest.raises(Exception, match=r"(?i)terminat|gone away|lost connection"):
            connection.execute(text("SELECT 1"))
        connection.invalidate()
    engine.dispose()


@pytest.mark.parametrize("kind", ["MariaDBServer", "PostgreSQLServer"])
def test_a_server_ends_with_the_tests_that_are_killed(kind: str) -> None:
    program = textwrap.dedent(f"""
        import sys
        from tests.servers import {kind}, Template
        server = {kind}(Template({kind}))
        server.start()
        print(server.pid, server.data.parent, flush=True)
        sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        pid, folder = tests.stdout.readline().split()
        server = psutil.Process(int(pid))
        tests.kill()

    psutil.wait_procs([server], timeout=10)

    assert not server.is_running()
    deadline = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
