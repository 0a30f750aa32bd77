"""The transactions that callers have open on a server, each on its connection from begin to end.

```
 begin ──▶ lent ──first statement──▶ begun on the server ──commit, rollback──▶ back to the pool
            └─ idle too long, holder gone, undone by the server ─▶ rolled back ─▶ back to the pool; its holder is told why
```
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock.channels.db.server.driver import Mode
from penstock.channels.db.server.pool import Lent
from penstock.channels.db.server.results import OpenResult
from penstock.channels.service import Caller
from penstock.errors import DatabaseError


class Transaction:
    """One caller's connection, from begin to end."""

    def __init__(self, number: int, lent: Lent, mode: Mode) -> None:
        self.number = number
        self.caller = lent.caller
        self.lent = lent
        self.mode = mode
        self.turn = asyncio.Lock()
        """Of the caller's tasks one at a time runs a statement."""
        self.result: OpenResult | None = None
        """What is not read to its end: it holds the wire."""
        self.is_begun = False
        """True once a statement of it went to the server."""
        self.is_over = False
        self.idle: asyncio.TimerHandle | None = None
        self.waiting = 0
        """Statements that run or wait for their turn."""


class Transactions:
    """All of them; `roll_back` is called when one ends that nobody is using."""

    def __init__(self, idle_s: float, roll_back: Callable[[Transaction], None]) -> None:
        self._idle_s = idle_s
        self._roll_back = roll_back
        self._numbers = itertools.count(1)
        self._open: dict[int, Transaction] = {}
        # Why those that ended by themselves did, until their holder has heard of it.
        self._over: dict[int, tuple[Caller, str]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, lent: Lent, mode: Mode) -> Transaction:
        """A new one; idle from here on."""
        transaction = Transaction(next(self._numbers), lent, mode)
        self._open[transaction.number] = transaction
        self._watch(transaction)
        return transaction

    @contextmanager
    def entered(self, number: int, caller: Caller) -> Iterator[Transaction]:
        """The caller's, which is not idle in here; in the work that uses it. Raises `DatabaseError` when it is over."""
        transaction = self._enter(number, caller)
        try:
            yield transaction
        finally:
            self._leave(transaction)

    def over(self, number: int, caller: Caller) -> DatabaseError:
        """Why it is; told once."""
        _, why = self._over.pop(number, (caller, "its block or its message has ended"))
        msg = f"the transaction is over: {why}; nothing of the statement was run"
        return DatabaseError(msg, "OperationalError")

    def is_open(self, number: int | None) -> bool:
        """False for none."""
        return number in self._open

    def close(self, transaction: Transaction) -> None:
        """It ends now, by its caller or by the server; whoever closes it gives the connection back."""
        self._open.pop(transaction.number, None)
        self._unwatch(transaction)
        transaction.is_over = True

    def abandon(self, transaction: Transaction, why: str | None = None) -> None:
        """It ends without its caller, who is told why unless he is gone."""
        if self._open.pop(transaction.number, None) is None:
            return
        self._unwatch(transaction)
        if why is not None:
            self._over[transaction.number] = (transaction.caller, why)
        if not transaction.waiting:
            self._finish(transaction)

    def forget(self, caller: Caller | None = None) -> None:
        """The caller is gone; None for all."""
        for transaction in list(self._open.values()):
            if caller is None or transaction.caller is caller:
                self.abandon(transaction)
        for number in [number for number, (whose, _) in self._over.items() if whose is caller]:
            del self._over[number]

    def _enter(self, number: int, caller: Caller) -> Transaction:
        transaction = self._open.get(number)
        if transaction is None or transaction.caller is not caller:
            raise self.over(number, caller)
        transaction.waiting += 1
        self._unwatch(transaction)
        return transaction

    def _leave(self, transaction: Transaction) -> None:
        transaction.waiting -= 1
        if transaction.waiting:
            return
        if transaction.number in self._open:
            self._watch(transaction)
        elif not transaction.is_over:
            # It was abandoned meanwhile, and left to us.
            self._finish(transaction)

    def _finish(self, transaction: Transaction) -> None:
        transaction.is_over = True
        self._roll_back(transaction)

    def _watch(self, transaction: Transaction) -> None:
        why = (
            f"it was rolled back because it stood {self._idle_s:g} s without a statement (database.transaction_idle_s), "
            "and others wait for its connection; nothing of it was kept"
        )
        loop = asyncio.get_running_loop()
        transaction.idle = loop.call_later(self._idle_s, self.abandon, transaction, why)

    def _unwatch(self, transaction: Transaction) -> None:
        if transaction.idle is not None:
            transaction.idle.cancel()
            transaction.idle = None
