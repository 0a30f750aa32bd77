"""A transaction keeps its subprocess from its beginning to its end; whoever leaves it idle for too long loses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar

from penstock.proxy import wire
from penstock.proxy.child import Child, whole
from penstock.proxy.pool import Pool
from penstock.proxy.values import packed_parameters

Parameters: TypeAlias = Sequence[Any] | Mapping[str, Any]
_Answer = TypeVar("_Answer")
#: Rows of an executemany that cross at once.
_BATCH_ROWS: Final = 5_000


class Transaction:
    """One transaction: committed at the end of the `with` block, rolled back when the block raises.

    Made by `SQLProxy.transaction`. One thread at a time.
    """

    def __init__(self, pool: Pool, driver: ModuleType) -> None:
        self._pool = pool
        self._driver = driver
        self._booking = pool.book()

    @property
    def child(self) -> Child:
        """The subprocess that it runs in."""
        return self._booking.child

    @property
    def is_open(self) -> bool:
        """False once it has ended, whoever ended it."""
        return not self._booking.is_revoked

    def execute(self, sql: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        """Run a statement in the transaction; the rows of its result, an empty list when it has none.

        Raises what the driver raises, and its `OperationalError` when the transaction is over: ended, idle for too long,
        or its subprocess died.
        """
        return self.whole(wire.Statement(sql, parameters_of(parameters, self._driver)))[1]

    def executemany(self, sql: str, rows: Iterable[Parameters]) -> int:
        """Run a statement with each row of parameters; how many rows changed, -1 when the driver does not say.

        Raises as `execute` does.
        """
        changed = 0
        for batch in batches(rows, self._driver):
            answer, _ = self.whole(wire.Statement(sql, batch, many=True))
            changed = changed + answer.rowcount if answer.rowcount >= 0 and changed >= 0 else -1
        return changed

    def whole(self, request: wire.Statement) -> tuple[wire.Result, list[tuple[Any, ...]]]:
        """A statement's answer and all of its rows. Raises as `execute` does."""
        payload = wire.encode(request)
        return whole(self.ask(lambda child: child.exchange(payload)), self._driver)

    def ask(self, question: Callable[[Child], _Answer]) -> _Answer:
        """Run a question on its subprocess. Raises as `execute` does."""
        booking = self._booking
        with booking.lock:
            if booking.is_revoked:
                raise self._driver.OperationalError(
                    "the transaction is over: it was ended, it was without a statement for too long and has been rolled back "
                    "for others who waited, or the process was forked; nothing of it was committed since. Begin again"
                )
            try:
                return question(booking.child)
            finally:
                booking.used_at_s, booking.used_by = time.monotonic(), threading.get_ident()
                if not booking.child.is_alive:
                    self._pool.end(booking, commit=False)

    def end(self, *, commit: bool) -> None:
        """Commit or roll back; harmless when it has ended in a rollback. Raises as `execute` does."""
        booking = self._booking
        with booking.lock:
            if not booking.is_revoked:
                self._pool.end(booking, commit=commit)
            elif commit:
                raise self._driver.OperationalError(
                    "the transaction cannot be committed: it was without a statement for too long, or its subprocess ended, and it "
                    "has been rolled back"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(commit=kind is None)


def parameters_of(parameters: Any, driver: ModuleType) -> Any:
    """Parameters on their way. Raises the driver's `ProgrammingError` for a type that cannot cross; nothing was run."""
    try:
        return packed_parameters(parameters)
    except TypeError as error:
        raise driver.ProgrammingError(f"{error}; nothing was run with it") from None


def batches(rows: Iterable[Any], driver: ModuleType) -> Iterator[list[Any]]:
    """The parameters of an executemany in parts that fit a frame. Raises as `parameters_of` does."""
    source = iter(rows)
    while batch := [parameters_of(row, driver) for row in islice(source, _BATCH_ROWS)]:
        yield batch
