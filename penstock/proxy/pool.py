"""Who may use which subprocess: started when it is needed, handed on in the order of asking.

A statement takes one and gives it back. A transaction keeps its own under a booking, which others may end when it has
been idle for too long: a thread that hangs does not hold up all that wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from types import ModuleType
from typing import Final

from penstock.proxy import wire
from penstock.proxy.child import Child

#: How often a thread that waits looks for a booking that has become idle.
_LOOK_S: Final = 0.1


class _Waiter:
    """A thread in the line; its gate opens when it has been given a place."""

    def __init__(self, wanted: Child | None, request: bytes | None) -> None:
        self.wanted = wanted
        self.request = request
        self.gate = threading.Lock()
        self.gate.acquire()
        self.given: Child | None = None
        self.may_start = False


class Booking:
    """A subprocess that one transaction keeps."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.lock = threading.Lock()
        """Held while a statement runs."""
        self.used_at_s = time.monotonic()
        self.used_by = threading.get_ident()
        self.is_revoked = False


class Pool:
    """Up to `size` subprocesses of one kind."""

    def __init__(
        self, start: Callable[[], Child], *, size: int, wait_s: float, idle_s: float, driver: ModuleType
    ) -> None:
        self._start = start
        self._size = size
        self._wait_s = wait_s
        self._idle_s = idle_s
        self._driver = driver
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._children: set[Child] = set()
        self._starting = 0
        self._waiters: deque[_Waiter] = deque()
        self._bookings: set[Booking] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return (
            f"<Pool of {self._size}: {len(self._children)} running, {len(self._idle)} idle, {len(self._bookings)} in "
            f"transactions, {len(self._waiters)} threads waiting>"
        )

    @property
    def children(self) -> list[Child]:
        """Those that run."""
        return list(self._children)

    def exchange(self, request: bytes) -> list[memoryview]:
        """All parts of an answer, from any subprocess. Raises as `take` and `Child.exchange` do."""
        child = self.take(request=request)
        try:
            return child.exchange(request)
        finally:
            self.give(child)

    def take(self, wanted: Child | None = None, *, request: bytes | None = None) -> Child:
        """A subprocess for this thread, or the wanted one, until `give`.

        When this thread has to wait, whoever gives the subprocess back hands it the request at once: until a thread has
        woken up and has the GIL, the answer may be there.

        Raises the driver's `OperationalError` when none was free in time or the wanted one is gone, and what opening a
        connection raises.
        """
        while True:
            with self._lock:
                child, waiter = self._choose(wanted, request)
            if waiter is not None:
                child = self._wait(waiter)
            if child is None:
                return self._started()
            if child.check():
                return child
            # It died while it was idle, and no statement with it.
            self.give(child)
            if wanted is not None:
                raise self._gone()

    def give(self, child: Child) -> None:
        """The thread has its answer; a subprocess that has ended leaves its place to a new one."""
        if child.dropped:
            child.tell_dropped()
        with self._lock:
            if child.is_alive and not self._is_closed:
                self._hand_on(child)
                return
            self._children.discard(child)
            self._give_place()
        child.close()

    def book(self) -> Booking:
        """A subprocess with a transaction begun on it. Raises as `take` does, and what beginning raises."""
        child = self.take()
        try:
            child.ask(wire.Begin())
        except BaseException:
            self.give(child)
            raise
        booking = Booking(child)
        with self._lock:
            self._bookings.add(booking)
        return booking

    def end(self, booking: Booking, *, commit: bool) -> None:
        """End the transaction and give its subprocess back; the caller holds the booking's lock. Raises what ending raises."""
        with self._lock:
            if booking not in self._bookings:
                return
            self._bookings.discard(booking)
        booking.is_revoked = True
        try:
            if booking.child.is_alive:
                booking.child.ask(wire.End(commit))
        finally:
            self.give(booking.child)

    def close(self) -> None:
        """End all subprocesses; those that are in use end with their statement."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
            self._children.difference_update(idle)
            bookings = list(self._bookings)
        for child in idle:
            child.close()
        for booking in bookings:
            if booking.lock.acquire(blocking=False):
                try:
                    self.end(booking, commit=False)
                except Exception:  # noqa: BLE001, S110 - it is thrown away in any case
                    pass
                finally:
                    booking.lock.release()

    def let_go(self) -> None:
        """In a child of a fork: forget all of it."""
        for child in self._children:
            child.let_go()
        for booking in self._bookings:
            booking.is_revoked = True

    def _choose(self, wanted: Child | None, request: bytes | None) -> tuple[Child | None, _Waiter | None]:
        """A free one; or none and nobody to wait for: start one; or a place in the line."""
        if self._is_closed:
            raise self._driver.InterfaceError("the SQLProxy is closed")
        if wanted is not None:
            if wanted not in self._children:
                raise self._gone()
            if wanted in self._idle:
                self._idle.remove(wanted)
                return wanted, None
        elif self._idle:
            return self._idle.pop(), None
        elif len(self._children) + self._starting < self._size:
            self._starting += 1
            return None, None
        mine = threading.get_ident()
        if len(self._bookings) == self._size and all(booking.used_by == mine for booking in self._bookings):
            raise self._driver.ProgrammingError(
                "this thread would wait for itself: it has a transaction open that holds the subprocess it needs; use that "
                "transaction for this statement, or end it before. Nothing was run"
            )
        waiter = _Waiter(wanted, request)
        self._waiters.append(waiter)
        return None, waiter

    def _wait(self, waiter: _Waiter) -> Child | None:
        try:
            return self._given(waiter)
        except BaseException:
            # Ctrl-C, for one: what was given meanwhile goes on to the next.
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                if waiter.may_start:
                    self._starting -= 1
                    self._give_place()
            if waiter.given is not None:
                waiter.given.close()
                self.give(waiter.given)
            raise

    def _given(self, waiter: _Waiter) -> Child | None:
        deadline_s = time.monotonic() + self._wait_s
        while not waiter.gate.acquire(timeout=_LOOK_S):
            self._revoke_idle()
            if time.monotonic() > deadline_s:
                with self._lock:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                        raise self._driver.OperationalError(
                            f"no subprocess of the proxy was free within {self._wait_s:g} s, all {self._size} were held: "
                            f"{self._holders()}; the statement was not run. Raise processes or wait_s, or keep transactions short"
                        )
        if waiter.given is None and not waiter.may_start:
            raise self._gone()
        return waiter.given

    def _holders(self) -> str:
        """Who has the subprocesses, in words."""
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        now_s = time.monotonic()
        held = [
            f"by a transaction of thread {names.get(booking.used_by, booking.used_by)}, whose last statement ended "
            f"{now_s - booking.used_at_s:.1f} s ago"
            for booking in self._bookings
        ]
        if single := len(self._children) - len(self._idle) - len(held):
            held.append(f"{single} by single calls (execute, run, fetch)")
        if self._starting:
            held.append(f"{self._starting} starting")
        return ", ".join(held)

    def _started(self) -> Child:
        try:
            child = self._start()
        except BaseException:
            with self._lock:
                self._starting -= 1
                self._give_place()
            raise
        with self._lock:
            self._starting -= 1
            self._children.add(child)
        return child

    def _hand_on(self, child: Child) -> None:
        for waiter in self._waiters:
            if waiter.wanted is None or waiter.wanted is child:
                self._waiters.remove(waiter)
                waiter.given = child
                if waiter.request is not None:
                    child.hand(waiter.request)
                waiter.gate.release()
                return
        self._idle.append(child)

    def _give_place(self) -> None:
        """A subprocess is gone: who waits for any may start one; who waits for that one waits in vain."""
        for waiter in list(self._waiters):
            if waiter.wanted is not None and waiter.wanted not in self._children:
                self._waiters.remove(waiter)
                waiter.gate.release()
        for waiter in self._waiters:
            if waiter.wanted is None and len(self._children) + self._starting < self._size:
                self._waiters.remove(waiter)
                self._starting += 1
                waiter.may_start = True
                waiter.gate.release()
                return

    def _revoke_idle(self) -> None:
        old_s = time.monotonic() - self._idle_s
        for booking in list(self._bookings):
            if booking.used_at_s < old_s and booking.lock.acquire(blocking=False):
                try:
                    if booking.used_at_s < old_s:
                        self.end(booking, commit=False)
                finally:
                    booking.lock.release()

    def _gone(self) -> Exception:
        error: Exception = self._driver.OperationalError(
            "the subprocess that had the rest of this result has ended: run the statement again"
        )
        return error
