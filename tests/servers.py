"""A MariaDB and a PostgreSQL of the tests' own: port, data and users in a temporary folder, so that tests may kill them.

Two processes a server; the guard ends the other when this process ends in any way, SIGKILL included:

    guard (sh, reads from us which process to end, until the pipe's end; then kills it, and removes the folder)
    mariadbd or postgres (`pid` is the one to kill; as the package's user when we are root, whom both refuse)

Quick, and as durable as a killed process needs: a commit is written to the file before it is answered, and nothing
waits for the disk. The data are made once (`Template`, 1 to 3 s) and copied for each server (0.1 s).
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import psutil
import psycopg
import pymysql
from sqlalchemy import URL, make_url

from tests.broker import free_ports, which
from tests.server_process import STOP_DEADLINE_S, GuardedFolder, NoServerError, run, run_as, spawn

BOOT_DEADLINE_S: Final = 60.0
FORGET_DEADLINE_S: Final = 5.0
USER: Final = "penstock"
PASSWORD: Final = "p/w@d"


class Server(ABC):
    """One database server; `start` boots it (about 1 s) and returns when it answers.

    Data outlive `stop` and `kill`, so that `start` afterwards is a restart; `close` ends it all and removes them.
    """

    #: The name of the fixtures, and SQLAlchemy's name of the database with its driver.
    kind: str
    driver: str
    #: The package's user, whom the server runs as when we are root.
    user: str

    def __init__(self, template: "Template", *, options: dict[str, str] | None = None) -> None:
        self.host = "127.0.0.1"
        (self.port,) = free_ports(1)
        self._options = options or {}
        self._folder = GuardedFolder(f"penstock-{self.kind}-", run_as(self.user), self._last_signal)
        self.data = self._folder.path / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        subprocess.run(["cp", "-a", str(template.data), str(self.data)], check=True)

    @classmethod
    @abstractmethod
    def initialise(cls, data: Path) -> None:
        """Makes a new data folder; raises NoServerError when the server is not here."""

    @abstractmethod
    def _command(self) -> list[str]: ...

    @abstractmethod
    def _connect(self, database: str) -> Any:
        """The driver's connection, autocommitting."""

    @abstractmethod
    def connections(self, url: str) -> list[int]:
        """The server's own list: the ids of the connections that there are to that database, ours left out."""

    @abstractmethod
    def kill_connection(self, number: int) -> None:
        """Ends a connection from the server's side."""

    def connections_once(self, url: str, count: int) -> list[int]:
        """As `connections`, once there are so many: a server takes its time to forget one that said goodbye. 5 s at most."""
        deadline = time.monotonic() + FORGET_DEADLINE_S
        while len(found := self.connections(url)) != count and time.monotonic() < deadline:
            time.sleep(0.01)
        return found

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of a database that is always there."""
        return self.url_for(self._home)

    def url_for(self, database: str) -> str:
        return URL.create(self.driver, USER, PASSWORD, self.host, self.port, database).render_as_string(
            hide_password=False
        )

    @property
    def pid(self) -> int:
        """The server's process; raises RuntimeError when it is not running."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What the server has written so far, all its lives together."""
        return (self._folder.path / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Boots the server; raises RuntimeError with the end of its log when it does not answer in 60 s."""
        if self._process is not None:
            raise RuntimeError(f"the {self.kind} server is already running, as process {self._process.pid}")
        with (self._folder.path / "server.log").open("ab") as log:
            self._process = spawn(self._command(), self.user, cwd=self._folder.path, output=log.fileno())
        self._folder.guard(self._process.pid)
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """Ends the server as the system's service does: connections are closed with words, work is rolled back."""
        self._end(self._stop_signal)

    def kill(self) -> None:
        """SIGKILL to the server and whatever serves it: what was not written is gone, and nobody is told."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops in good order and boots again, on the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the connections stand, nobody answers."""
        for process in self._family():
            # One that serves a connection may just be going.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
            # The signal is sent, and a thread that runs just now has not met it yet.
            while not _stands_still(process.pid):
                time.sleep(0.001)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        for process in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def execute(self, statement: str, *, url: str | None = None) -> list[tuple[Any, ...]]:
        """Runs one statement on a connection of its own, committed; returns the rows, if it has any."""
        database = self._home if url is None else name_in(url)
        with contextlib.closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def new_database(self) -> str:
        """Makes an empty database and returns its SQLAlchemy URL."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url_for(name)

    def drop_database(self, url: str) -> None:
        """Removes a database, and whoever is still connected to it."""
        for number in self.connections(url):
            # It may have ended by itself.
            with contextlib.suppress(pymysql.MySQLError, psycopg.Error):
                self.kill_connection(number)
        self.execute(f"DROP DATABASE {name_in(url)}")

    def close(self) -> None:
        """Ends what runs at once and removes the data; harmless when repeated."""
        if self._process is not None:
            self.thaw()
            self._end(self._last_signal)
        self._folder.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    _home: str
    _stop_signal: signal.Signals
    _last_signal = signal.SIGKILL
    """Ends it without a look at its data, which go with it."""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"the {self.kind} server is not running")
        return self._process

    def _family(self) -> list[psutil.Process]:
        process = psutil.Process(self._running().pid)
        return [process, *process.children(recursive=True)]

    def _end(self, with_signal: signal.Signals) -> None:
        family = self._family() if with_signal == signal.SIGKILL else []
        process = self._running()
        process.send_signal(with_signal)
        for member in family[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(STOP_DEADLINE_S)
        deadline = time.monotonic() + STOP_DEADLINE_S
        while any(map(_lives, family[1:])) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._process = None
        self._folder.guard(None)

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + BOOT_DEADLINE_S
        while True:
            try:
                self.execute("SELECT 1")
            except (pymysql.MySQLError, psycopg.Error, OSError) as error:
                code = process.poll()
                if code is not None or time.monotonic() > deadline:
                    self._process = None
                    process.kill()
                    process.wait(STOP_DEADLINE_S)
                    fate = f"does not answer ({error})" if code is None else f"ended with {code}"
                    raise RuntimeError(f"{self.kind} {fate} while booting:\n{self.log[-4000:]}") from None
                time.sleep(0.02)
            else:
                return


class MariaDBServer(Server):
    kind = "mariadb"
    driver = "mysql+pymysql"
    user = "mysql"
    _home = "mysql"
    _stop_signal = signal.SIGTERM

    @classmethod
    def initialise(cls, data: Path) -> None:
        if which("mariadbd") is None or (install := which("mariadb-install-db")) is None:
            raise NoServerError("no mariadbd on this machine: scripts/databases says what to install")
        run(
            # A server that boots clears its tmpdir of tables, which in a shared one are another server's.
            [install, "--no-defaults", f"--datadir={data}", f"--tmpdir={data.parent}", "--auth-root-authentication-method=normal",
             "--skip-test-db", "--innodb-log-file-size=8M", "--skip-name-resolve"],
            cls.user,
            cwd=data.parent,
        )  # fmt: skip
        grants = f"CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO {USER}@'%' WITH GRANT OPTION;"
        (data / "penstock.sql").write_text(grants.replace("; ", ";\n"))

    def _command(self) -> list[str]:
        options = {
            "datadir": str(self.data),
            "tmpdir": str(self._folder.path),
            "socket": str(self._folder.path / "socket"),
            "pid-file": str(self._folder.path / "pid"),
            "bind-address": self.host,
            "port": str(self.port),
            "innodb-flush-log-at-trx-commit": "2",
            "innodb-log-file-size": "8M",
            "innodb-buffer-pool-size": "32M",
            "innodb-doublewrite": "0",
            "performance-schema": "0",
            **self._options,
        }
        first = self.data / "penstock.sql"
        if not (self.data / "booted").exists():
            (self.data / "booted").touch()
            options["init-file"] = str(first)
        return [
            str(which("mariadbd")), "--no-defaults", "--skip-name-resolve",
            *(f"--{name}={value}" for name, value in options.items()),
        ]  # fmt: skip

    def _connect(self, database: str) -> Any:
        return pymysql.connect(
            host=self.host, port=self.port, user=USER, password=PASSWORD, database=database, autocommit=True
        )

    def connections(self, url: str) -> list[int]:
        rows = self.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{name_in(url)}' AND id <> CONNECTION_ID()"
        )
        return [number for (number,) in rows]

    def kill_connection(self, number: int) -> None:
        self.execute(f"KILL CONNECTION {number}")


class PostgreSQLServer(Server):
    kind = "postgresql"
    driver = "postgresql+psycopg"
    user = "postgres"
    _home = "postgres"
    # SIGTERM would wait until the last client has gone by itself; the package's service sends this one, too.
    _stop_signal = signal.SIGINT
    # Killed, it would leave its shared memory to the system, which has room for 4,096 such.
    _last_signal = signal.SIGQUIT

    @classmethod
    def initialise(cls, data: Path) -> None:
        password = data.parent / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        run(
            [str(cls._program("initdb")), "--no-sync", f"--pgdata={data}", f"--username={USER}",
             f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"],
            cls.user,
            cwd=data.parent,
        )  # fmt: skip

    @staticmethod
    def _program(name: str) -> Path:
        # Debian keeps the server's programs off the PATH, a folder a version.
        newest = sorted(
            Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4])
        )
        if newest:
            return newest[-1]
        found = which(name)
        if found is None:
            raise NoServerError(
                f"no PostgreSQL {name} on this machine: scripts/databases says what to install"
            )
        return Path(found)

    def _command(self) -> list[str]:
        options = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            # The system's memory outlives the process, so a killed server has every commit; see above.
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_wal_size": "256MB",
            **self._options,
        }
        return [
            str(self._program("postgres")), "-D", str(self.data),
            *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
        ]  # fmt: skip

    def _connect(self, database: str) -> Any:
        return psycopg.connect(
            host=self.host, port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True
        )

    def connections(self, url: str) -> list[int]:
        rows = self.execute(
            "SELECT pid FROM pg_stat_activity "
            f"WHERE datname = '{name_in(url)}' AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )
        return [number for (number,) in rows]

    def kill_connection(self, number: int) -> None:
        self.execute(f"SELECT pg_terminate_backend({number})")


class Template:
    """A data folder as it is before the first boot, made once a session."""

    def __init__(self, kind: type[Server]) -> None:
        self._folder = GuardedFolder(f"penstock-{kind.kind}-template-", run_as(kind.user))
        self.data = self._folder.path / "data"
        try:
            kind.initialise(self.data)
        except BaseException:
            self._folder.close()
            raise

    def close(self) -> None:
        self._folder.close()


def _lives(process: psutil.Process) -> bool:
    # They are nobody's children now, and whoever adopts them takes his time to see them off.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _stands_still(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    # One that has just ended is a zombie until its parent, which stands still, too, goes on.
    return all(path.read_text().rpartition(")")[2].split()[0] in ("T", "Z") for path in threads)


def name_in(url: str) -> str:
    """The database that a URL names."""
    return str(make_url(url).database)


@contextlib.contextmanager
def database_on(server: Server) -> Iterator[str]:
    """The URL of an empty database, which is gone afterwards."""
    url = server.new_database()
    try:
        yield url
    finally:
        server.drop_database(url)
