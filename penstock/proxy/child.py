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
from penstock.proxy.line import Line

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
        try:
            payload = wire.encode(request)
            self._line.send(payload)
        except FrameError as error:
            # Nothing was sent.
            raise self.driver.DataError(str(error)) from None
        except OSError:
            raise self._died() from None
        except (TypeError, ValueError, OverflowError):
            raise
        except BaseException:
            self.close()
            raise
        return self.answer()

    def answer(self) -> wire.Result | wire.Rows | wire.Value:
        """The next answer, of several for one question. Raises as `ask` does."""
        try:
            answer: wire.Answer = wire.decode_answer(self._line.receive())
        except (EOFError, OSError):
            raise self._died() from None
        except BaseException:
            # Cut short, by Ctrl-C for one: what comes next would be the answer to something else.
            self.close()
            raise
        if isinstance(answer, wire.Failed):
            if answer.is_last:
                self.close()
            raise exception_of(answer, self.driver)
        return answer

    def collect(self, request: wire.Request) -> tuple[wire.Result, list[tuple[object, ...]]]:
        """The answer to a statement with all of its rows. Raises as `ask` does."""
        answer = self.ask(request)
        assert isinstance(answer, wire.Result)
        rows, more = answer.rows, answer.more
        while more:
            further = self.answer()
            assert isinstance(further, wire.Rows)
            rows += further.rows
            more = further.more
        return answer, rows

    def take_dropped(self) -> list[int]:
        """Numbers of cursors that are to be closed, told once."""
        found = []
        while self.dropped:
            found.append(self.dropped.popleft())
        return found

    def check(self) -> bool:
        """False when it has died while nobody used it."""
        if self.is_alive and not self._line.is_open():
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
