"""A subprocess as its application sees it: started, asked, found dead, ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from contextlib import suppress
from types import ModuleType
from typing import Final

from penstock.errors import FrameError
from penstock.proxy import wire
from penstock.proxy.failures import exception_of
from penstock.proxy.line import SHORT_BYTES, Line

_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[3:]; from penstock.proxy.serving import main; main()"
#: A subprocess that has lost its socket closes its connection and ends; one that does not is inside a statement.
_END_S: Final = 2.0


class Child:
    """One subprocess. Whoever has taken it from the pool may use it, one thread at a time."""

    def __init__(self, boot: wire.Boot, driver: ModuleType) -> None:
        """Start it and connect. Raises what the driver raised there."""
        self.driver = driver
        #: Cursors that their users have let go; told with the next question. Written by any thread.
        self.dropped: deque[int] = deque()
        self.last_cursor = 0
        self.is_alive = True
        self.is_asked = False
        """Its next user's question is already with it."""
        ours, theirs = socket.socketpair()
        hung_up, self._lifeline = os.pipe()
        self._pid = os.getpid()
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(hung_up), *sys.path],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), hung_up),
                )
        except BaseException:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            os.close(hung_up)
        self._line = Line(ours, limit_bytes=boot.frame_bytes)
        try:
            self.ask(boot)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The subprocess's process id."""
        return self._process.pid

    def ask(self, request: wire.Request) -> wire.Result | wire.Rows | wire.Value:
        """The answer. Raises what the statement raised, and the driver's `OperationalError` when the subprocess died."""
        (payload,) = self.exchange(wire.encode(request))
        return decoded(payload, self.driver)

    def exchange(self, request: bytes) -> list[memoryview]:
        """All parts of the answer, as they came; `decoded` reads them, when the subprocess may serve others again.

        Raises the driver's `OperationalError` when the subprocess died, and its `DataError` when the request is too long.
        """
        try:
            if not self.is_asked:
                if self.dropped:
                    self.tell_dropped()
                try:
                    self._line.send(request)
                except FrameError as error:
                    raise self.driver.DataError(str(error)) from None
            self.is_asked = False
            parts = []
            mark = wire.MORE
            while mark == wire.MORE:
                part = self._line.receive()
                mark = bytes(part[:1])
                parts.append(part[1:])
        except self.driver.DataError:
            raise  # nothing was sent
        except (EOFError, OSError):
            raise self._died() from None
        except BaseException:
            # Cut short, by Ctrl-C for one: what comes next would be the answer to something else.
            self.close()
            raise
        if mark == wire.LAST:
            self.close()
        return parts

    def hand(self, request: bytes) -> None:
        """Ask for a thread that still has to wake up, which then calls `exchange` with the same request."""
        if len(request) <= SHORT_BYTES:
            # It has died, then: who waits will find it so.
            with suppress(OSError, FrameError):
                self._line.send(request)
                self.is_asked = True

    def tell_dropped(self) -> None:
        """Tell which cursors are to be closed."""
        found = []
        while self.dropped:
            found.append(self.dropped.popleft())
        if found and self.is_alive:
            with suppress(OSError):
                self._line.send(wire.encode(wire.Drop(found)))

    def check(self) -> bool:
        """False when it has died while nobody used it."""
        if self.is_alive and not self.is_asked and not self._line.is_open():
            self.close()
        return self.is_alive

    def close(self) -> None:
        """End it: its connection is closed, and what was not committed is rolled back."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._line.sock.close()
        if self._pid == os.getpid():
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        os.close(self._lifeline)

    def let_go(self) -> None:
        """In a child of a fork: it is the parent's, and only our copies of its descriptors are closed."""
        if self.is_alive:
            self.is_alive = False
            self._process.returncode = 0  # nobody to wait for, here
            with suppress(OSError):
                self._line.sock.close()
            with suppress(OSError):
                os.close(self._lifeline)

    def _died(self) -> Exception:
        self.close()
        code = self._process.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        error: Exception = self.driver.OperationalError(
            f"subprocess {self._process.pid} of the proxy ended {how} while it ran this statement, whose transaction was rolled "
            "back unless its commit was already on its way; the next statement gets another subprocess"
        )
        return error


def decoded(payload: memoryview, driver: ModuleType) -> wire.Result | wire.Rows | wire.Value:
    """One part of an answer. Raises what the statement raised."""
    answer: wire.Answer = wire.decode_answer(payload)
    if isinstance(answer, wire.Failed):
        raise exception_of(answer, driver)
    return answer


def whole(parts: list[memoryview], driver: ModuleType) -> tuple[wire.Result, list[tuple[object, ...]]]:
    """All parts of a statement's answer, and all of its rows. Raises what the statement raised."""
    first = decoded(parts[0], driver)
    assert isinstance(first, wire.Result)
    rows = first.rows
    for part in parts[1:]:
        further = decoded(part, driver)
        assert isinstance(further, wire.Rows)
        rows += further.rows
    return first, rows
