"""`SQLProxy`: what an application's threads call."""

from __future__ import annotations

import atexit
import os
import sqlite3
from collections.abc import Callable, Iterable
from importlib import import_module
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from weakref import WeakSet

from msgspec.structs import replace

from penstock.config.limits import LimitsSection
from penstock.errors import ConfigurationError
from penstock.proxy import wire
from penstock.proxy.child import Child, decoded, whole
from penstock.proxy.connection import Connection
from penstock.proxy.functions import name_of
from penstock.proxy.pool import Pool
from penstock.proxy.served_sqlite import check_options
from penstock.proxy.statements import Kind, kind_of
from penstock.proxy.transaction import Parameters, Transaction, parameters_of
from penstock.proxy.values import packed

_T = TypeVar("_T")
#: What PEP 249 wants of a module, and this object has from the driver.
_OF_DRIVER: Final = frozenset(
    {
        "Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError", "IntegrityError",
        "InternalError", "ProgrammingError", "NotSupportedError", "paramstyle", "Date", "Time", "Timestamp", "DateFromTicks",
        "TimeFromTicks", "TimestampFromTicks", "Binary",
    }
)  # fmt: skip
#: What a column's type code is compared with.
_TYPES: Final = {name: name for name in ("STRING", "BINARY", "NUMBER", "DATETIME", "ROWID")}
_CONTROL: Final = frozenset({Kind.BEGINS, Kind.COMMITS, Kind.ROLLS_BACK, Kind.SAVES})

_proxies: Final[WeakSet[SQLProxy]] = WeakSet()


class SQLProxy:
    """A database that any thread uses through subprocesses with one connection each.

    `SQLProxy("app.db")` is for an SQLite file: `processes` subprocesses read, one more writes. Any other PEP 249 driver by
    name: `SQLProxy(driver="pymysql", host="db", user="app")`; then `processes` is the number of connections, and the other
    options are the driver's. Nothing is started before it is needed. It is PEP 249's module and may be used as one:
    `connect`, `paramstyle`, the driver's exceptions.

    `processes` is one a core unless set. A thread waits up to `wait_s` seconds for a subprocess. A transaction that is
    without a statement for `transaction_idle_s` seconds is rolled back. No row and no parameter is longer than
    `frame_bytes`. In one subprocess up to `results` results may be half read.

    Raises `ConfigurationError` for a driver that is not installed, a database in memory, a number that cannot be, an unknown
    option of SQLite's, or a server's connection that would commit by itself.
    """

    apilevel = "2.0"
    threadsafety = 2

    def __init__(
        self,
        database: str | os.PathLike[str] | None = None,
        /,
        *,
        driver: str = "sqlite3",
        processes: int | None = None,
        wait_s: float = 30.0,
        transaction_idle_s: float = 5.0,
        results: int = 100,
        frame_bytes: int = LimitsSection.model_fields["frame_bytes"].default,
        **options: Any,
    ) -> None:
        _check_numbers(processes=processes, results=results, frame_bytes=frame_bytes)
        _check_seconds(wait_s=wait_s, transaction_idle_s=transaction_idle_s)
        self.processes = processes or os.cpu_count() or 1
        self.is_sqlite = driver == "sqlite3"
        self._wait_s = wait_s
        self._idle_s = transaction_idle_s
        name = None if database is None else os.fspath(database)
        if self.is_sqlite:
            check_options(name, options)
            # A daemon changes its folder later.
            name = os.path.abspath(str(name))  # noqa: PTH100 - a link stays a link
        elif options.get("autocommit"):
            msg = (
                f"SQLProxy(driver={driver!r}) does not take autocommit: half of a transaction that fails would stay. Leave it out; a "
                "single statement is committed when execute returns"
            )
            raise ConfigurationError(msg)
        try:
            self.driver = import_module(driver)
        except ImportError:
            msg = f"SQLProxy(driver={driver!r}): there is no such module; install the driver, or name another one"
            raise ConfigurationError(msg) from None
        self._boot = wire.Boot(
            driver,
            name,
            {key: packed(value) for key, value in options.items()},
            writes=True,
            frame_bytes=frame_bytes,
            idle_s=transaction_idle_s,
            results=results,
        )
        self._pools = self._new_pools()
        self._is_closed = False
        _proxies.add(self)

    def connect(self) -> Connection:
        """A PEP 249 connection. It costs nothing and holds nothing until it is used."""
        return Connection(self)

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run one statement, committed when this returns; the rows of its result, an empty list when it has none.

        Raises what the driver raises, and its `OperationalError` when the subprocess died in it, or none was free in time.
        """
        packed_parameters = parameters_of(parameters, self.driver)
        self._refuse_control(sql)

        def ask(pool: Pool, commits: bool) -> list[tuple[Any, ...]]:  # noqa: FBT001 - a callback
            request = wire.encode(wire.Statement(sql, packed_parameters, commits=commits))
            return whole(pool.exchange(request), self.driver)[1]

        return self.alone(sql, ask)

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run one statement with each row of parameters, all in one transaction; how many rows changed, -1 if unknown.

        Raises as `execute` does.
        """
        self._refuse_control(sql)
        with self.transaction() as transaction:
            return transaction.executemany(sql, rows)

    def transaction(self) -> Transaction:
        """Begin a transaction: `with proxy.transaction() as tx: tx.execute(…)`. SQLite: the only one that writes.

        Raises as `execute` does.
        """
        return Transaction(self.pool(writes=True), self.driver)

    def run(self, function: Callable[..., _T], /, *arguments: Any, write: bool = False) -> _T:
        """Call `function(connection, *arguments)` in a subprocess and give what it returns.

        The function is found there by its module and name; arguments and result are numbers, text, bytes, None, Decimals,
        dates, UUIDs, and lists, tuples and dicts of them. With `write` it runs in a transaction that is committed when it
        returns; without, SQLite's connection only reads, and another driver's is rolled back.

        Raises `ConfigurationError` for a function that has no place to be imported from, `TypeError` for a value that
        cannot cross, what the function raised if that is Python's own or the driver's, else `ProxyError`.
        """
        name = name_of(function)
        try:
            request = wire.Run(*name, [packed(argument) for argument in arguments], write)
        except TypeError as error:
            msg = f"{error}; nothing was run with it"
            raise TypeError(msg) from None
        (part,) = self.pool(writes=write).exchange(wire.encode(request))
        answer = decoded(part, self.driver)
        assert isinstance(answer, wire.Value)
        value: _T = answer.value
        return value

    def close(self) -> None:
        """End all subprocesses; transactions that are open are rolled back. Twice is harmless."""
        self._is_closed = True
        for pool in set(self._pools):
            pool.close()

    def alone(self, sql: str, ask: Callable[[Pool, bool], _T]) -> _T:
        """Ask for a statement that is a transaction of its own, wherever it belongs."""
        if self.is_sqlite and kind_of(sql) is Kind.READS:
            try:
                return ask(self.pool(writes=False), False)
            except sqlite3.OperationalError as error:
                # It looked like a read and was none (WITH … INSERT, PRAGMA user_version = 1); nothing has happened yet.
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_READONLY:
                    raise
        return ask(self.pool(writes=True), True)

    def pool(self, *, writes: bool) -> Pool:
        """The subprocesses that read, or the one that writes; all of them for another driver."""
        return self._pools[1 if writes else 0]

    @property
    def pids(self) -> list[int]:
        """Process ids of the subprocesses that run."""
        return sorted({child.pid for pool in self._pools for child in pool.children})

    def _new_pools(self) -> tuple[Pool, Pool]:
        if not self.is_sqlite:
            pool = self._new_pool(self.processes, writes=True)
            return pool, pool
        return self._new_pool(self.processes, writes=False), self._new_pool(1, writes=True)

    def _new_pool(self, size: int, *, writes: bool) -> Pool:
        boot = replace(self._boot, writes=writes)
        return Pool(
            lambda: Child(boot, self.driver),
            size=size,
            wait_s=self._wait_s,
            idle_s=self._idle_s,
            driver=self.driver,
        )

    def _refuse_control(self, sql: str) -> None:
        if kind_of(sql) in _CONTROL:
            raise self.driver.ProgrammingError(
                "BEGIN, COMMIT, ROLLBACK and SAVEPOINT would hold a connection that belongs to everybody: use proxy.transaction() "
                "or proxy.connect(); nothing was run"
            )

    def after_fork(self) -> None:
        """In a child of a fork: subprocesses of its own, once they are needed."""
        for pool in set(self._pools):
            pool.let_go()
        self._pools = self._new_pools()
        if self._is_closed:
            self.close()

    def __getattr__(self, name: str) -> Any:
        if name in _TYPES:
            # sqlite3 has none, because its columns have no types.
            return getattr(self.driver, name, None) or _TYPES[name]
        if name in _OF_DRIVER:
            return getattr(self.driver, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        # Options may hold a password.
        first, last = self._pools
        pools = f"readers {first!r}, writer {last!r}" if self.is_sqlite else repr(first)
        return f"<SQLProxy {self._boot.driver} {self._boot.database or 'by its options'}, {pools}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _check_numbers(**given: object) -> None:
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            msg = f"SQLProxy({name}={value!r}): a whole number, at least 1, is wanted"
            raise ConfigurationError(msg)


def _check_seconds(**given: object) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            msg = f"SQLProxy({name}={value!r}): a number of seconds, more than 0, is wanted"
            raise ConfigurationError(msg)


def _close_all() -> None:
    # At the program's end, so that servers see a goodbye.
    for proxy in list(_proxies):
        proxy.close()


def _after_fork() -> None:
    for proxy in list(_proxies):
        proxy.after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
