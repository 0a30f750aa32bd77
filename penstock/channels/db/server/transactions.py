"""The transactions that callers have open on a server, each on its connection from its first statement to its end.

```
 begin ──▶ open ──first statement──▶ on a connection ──commit, rollback──▶ back to the pool
                                       └─ idle too long, holder gone, undone by the server ─▶ rolled back, back to the
                                          pool; its holder is told why
```
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penstock.channels.db.server.driver import Mode
from penstock.channels.db.server.log import ServerLog
from penstock.channels.db.server.pool import Lent
from penstock.channels.db.server.results import OpenResult
from penstock.channels.service import Caller
from penstock.errors import DatabaseError


class Transaction:
    """One caller's."""

    def __init__(self, number: int, caller: Caller, mode: Mode) -> None:
        self.number = number
        self.caller = caller
        self.mode = mode
        self.lent: Lent | None = None
        """From its first statement on; before it there is nothing that others would have to wait for."""
        self.turn = asyncio.Lock()
        """Of the caller's tasks one at a time runs a statement."""
        self.result: OpenResult | None = None
        """What is not read to its end: it holds the wire."""
        self.is_begun = False
        """The server has heard of it."""
        self.is_over = False
        self.idle: asyncio.TimerHandle | None = None
        self.waiting = 0
        """Statements that run or wait for their turn."""


class Transactions:
    """All of them; `roll_back` is called when one ends that nobody is using."""

    def __init__(self, idle_s: float, roll_back: Callable[[Transaction], None], log: ServerLog) -> None:
        self._idle_s = idle_s
        self._log = log
        self._roll_back = roll_back
        self._numbers = itertools.count(1)
        self._open: dict[int, Transaction] = {}
        # Numbers that callers have chosen, below zero.
        self._chosen: dict[tuple[Caller, int], int] = {}
        # Why those that ended by themselves did, until their holder has ended them, too.
        self._over: dict[int, tuple[Caller, str]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, caller: Caller, mode: Mode) -> Transaction:
        """A new one."""
        transaction = Transaction(next(self._numbers), caller, mode)
        self._open[transaction.number] = transaction
        return transaction

    def begin_chosen(self, caller: Caller, number: int, mode: Mode) -> None:
        """A new one with a number that its caller has chosen; harmless when there is or was one."""
        if (caller, number) not in self._chosen:
            self._chosen[caller, number] = self.open(caller, mode).number

    def known_as(self, number: int, caller: Caller) -> int:
        """Our number for the caller's."""
        return self._chosen.get((caller, number), number)

    def forget_chosen(self, number: int, caller: Caller) -> None:
        """The caller speaks of it no more."""
        self._chosen.pop((caller, number), None)

    @contextmanager
    def entered(self, number: int, caller: Caller) -> Iterator[Transaction]:
        """The caller's, which is not idle in here; in the work that uses it. Raises `DatabaseError` when it is over."""
        transaction = self._enter(number, caller)
        try:
            yield transaction
        finally:
            self._leave(transaction)

    def over(self, number: int, caller: Caller) -> DatabaseError:
        """Why it is; told to every statement, for a handler may catch the first error and log the last."""
        _, why = self._over.get(number, (caller, "its block or its message has ended"))
        msg = f"the transaction is over: {why}; nothing of the statement was run"
        return DatabaseError(msg, "OperationalError")

    def forget_over(self, number: int) -> None:
        """Its holder has ended it: nobody asks any more."""
        self._over.pop(number, None)

    def held_idle_by(self, caller: Caller) -> int:
        """How many of the caller's have a connection and nothing to do on it."""
        return sum(
            transaction.caller is caller and transaction.lent is not None and not transaction.waiting
            for transaction in self._open.values()
        )

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
                if transaction.lent is not None:
                    self._log.abandoned(transaction.caller)
                self.abandon(transaction)
        for number in [number for number, (whose, _) in self._over.items() if whose is caller]:
            del self._over[number]
        for key in [key for key in self._chosen if key[0] is caller]:
            del self._chosen[key]

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
        if transaction.lent is None:
            return
        loop = asyncio.get_running_loop()
        transaction.idle = loop.call_later(self._idle_s, self._stood_idle, transaction)

    def _stood_idle(self, transaction: Transaction) -> None:
        self._log.idle(transaction.caller, self._idle_s)
        why = (
            f"it was rolled back because it stood {self._idle_s:g} s without a statement (database.transaction_idle_s), "
            "and others wait for its connection; nothing of it was kept. If its handler was waiting for another statement of its "
            "own meanwhile (ctx.db beside ctx.connection), that one may have waited for a row that this transaction had locked: "
            "use one of the two in a message"
        )
        self.abandon(transaction, why)

    def _unwatch(self, transaction: Transaction) -> None:
        if transaction.idle is not None:
            transaction.idle.cancel()
            transaction.idle = None
