"""A subprocess of the proxy: one connection, one socket, one question after the other.

Started as a program of its own, never forked and never importing the application's main module. It ends when the socket
does, and is killed by the kernel when its application dies, whatever it is doing.
"""

from __future__ import annotations

import socket
import sys
import traceback
from contextlib import nullcontext, suppress
from typing import Any, Final

from penstock.proxy import wire
from penstock.proxy.functions import function_of
from penstock.proxy.line import Line
from penstock.proxy.results import ABANDONED_S, CHUNK_BYTES, Open, Results
from penstock.proxy.served import Served
from penstock.proxy.statements import Kind, inserts, kind_of, returns, vacuums
from penstock.proxy.values import packed, packed_row
from penstock.workers.lifeline import die_at_hangup, ignore_stop_signals

#: Before the first frame has said what the limit is: a connection's options are short.
BOOT_BYTES: Final = 1024 * 1024


class Subprocess:
    """Answers what comes over the line until it ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._line = Line(sock, limit_bytes=BOOT_BYTES)

    def run(self) -> None:
        """Boot, then question and answer."""
        try:
            boot = wire.decode_request(self._line.receive())
            assert isinstance(boot, wire.Boot)
            self._boot = boot
            self._line.limit_bytes = boot.frame_bytes
            try:
                self._served = Served(boot)
            except Exception as error:  # noqa: BLE001 - told to the thread that wanted the connection
                self._send(self._failed(error), wire.LAST)
                return
            self._results = Results(
                limit=boot.results, idle_s=boot.idle_s, error=self._served.module.OperationalError
            )
            self._send(wire.Value())
            try:
                while self._answer():
                    pass
            finally:
                self._served.close()
        except (EOFError, OSError):
            return  # the application has closed its end

    def _answer(self) -> bool:
        served = self._served
        if served.in_transaction and not self._line.wait(self._boot.idle_s):
            # Nobody else can write, or use this connection; the thread finds out with its next statement.
            self._results.drop_all()
            served.end(commit=False)
        elif len(self._results):
            self._line.wait(ABANDONED_S)
            self._results.drop_abandoned()
        request = wire.decode_request(self._line.receive())
        broken = False
        try:
            served.ready()
            self._do(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            served.note_failed(error)
            served.undo()
            broken = served.is_broken() and not served.is_spoilt
            self._send(self._failed(error), wire.LAST if broken else wire.DONE)
        if served.is_spoilt:
            # Behind the answer, which need not wait for it.
            served.replace(is_read=len(self._results) > 0)
        return not broken

    def _do(self, request: wire.Request) -> None:
        match request:
            case wire.Statement():
                self._run_statement(request)
            case wire.Fetch():
                self._send_rows(request.cursor)
            case wire.Drop():
                self._results.drop(request.cursors)
            case wire.Begin():
                self._served.begin()
                self._send(wire.Value())
            case wire.End():
                self._end(commit=request.commit)
                self._send(wire.Value())
            case wire.Run():
                self._run_function(request)
            case wire.Boot():
                raise AssertionError("a subprocess boots once")

    def _end(self, *, commit: bool) -> None:
        served = self._served
        if commit and (why := served.why_not_committed(self._boot.idle_s)) is not None:
            with suppress(Exception):  # it may be closed
                served.end(commit=False)
            raise served.module.OperationalError(
                f"the transaction has been rolled back, {why}: nothing of it was committed"
            )
        if served.is_sqlite:
            if commit:
                self._results.keep_all()
            else:
                self._results.drop_all()
        served.end(commit=commit)

    def _run_statement(self, request: wire.Statement) -> None:
        served = self._served
        self._prepare(request)
        cursor = self._executed(request)
        lastrowid = getattr(cursor, "lastrowid", None)
        if served.is_sqlite and (request.many or not inserts(request.sql)):
            lastrowid = None  # of somebody else's row
        if cursor.description is None:
            served.settle(commits=request.commits)
            if served.is_sqlite and cursor.rowcount <= 0:
                lastrowid = None  # nothing was inserted
            self._send(wire.Result(None, cursor.rowcount, packed(lastrowid), [], more=False))
            cursor.close()
            return
        result = Open(cursor, self._carried, limit_bytes=self._boot.frame_bytes)
        description = None
        if request.cursor != 0 or request.many:
            # Whoever wants all rows of a statement at once asks for nothing else.
            description = tuple(tuple(map(_described, column)) for column in cursor.description)
        rowcount = -1 if cursor.rowcount is None else cursor.rowcount
        if self._boot.writes and kind_of(request.sql) is not Kind.READS:
            # RETURNING: until it is read to its end the statement has not ended.
            result.keep(limit=None)
        if served.is_sqlite and result.is_empty:
            lastrowid = None
        rows, more = result.next_rows()
        answer = wire.Result(description, rowcount, packed(lastrowid), rows, more)
        if request.cursor == 0:
            self._send_whole(answer, result, commits=request.commits)
            return
        if more:
            # Before anything is sent: there may be too many.
            self._results.make_room(result)
        else:
            served.settle(commits=request.commits)
        if self._send_part(answer, result):
            self._results.add(request.cursor, result)
        else:
            result.close()

    def _prepare(self, request: wire.Statement) -> None:
        served = self._served
        # First: a ROLLBACK by text makes good what the server has undone.
        served.note(request.sql)
        if not request.commits and self._boot.writes and (why := served.why_over(self._boot.idle_s)):
            raise served.module.OperationalError(f"the transaction has been rolled back, {why}; begin again")
        if served.is_sqlite and request.commits and request.cursor == 0 and returns(request.sql):
            # With its last row it would be committed, which may be too long to be sent.
            served.begin_statement()

    def _executed(self, request: wire.Statement) -> Any:
        served = self._served
        cursor = served.cursor()
        if request.many:
            cursor.executemany(request.sql, request.parameters)
        elif request.parameters:
            cursor.execute(request.sql, request.parameters)
        else:
            # Without parameters a % is a % to drivers that format.
            with served.ours() if vacuums(request.sql) else nullcontext():
                cursor.execute(request.sql)
        return cursor

    def _send_whole(self, answer: wire.Result | wire.Rows, result: Open, *, commits: bool) -> None:
        # The last rows follow the commit, so that nobody takes for done what was not; the commit waits until they can be sent.
        so = (
            "and the statement was rolled back"
            if commits
            else "the statement has run, and its transaction goes on"
        )
        frame = self._frame_of(answer, result, so)
        while answer.more:
            self._line.send(frame, wire.MORE)
            answer = wire.Rows(*result.next_rows())
            frame = self._frame_of(answer, result, so)
        self._served.settle(commits=commits)
        self._line.send(frame, wire.DONE)
        result.close()

    def _frame_of(self, answer: wire.Result | wire.Rows, result: Open, so: str) -> bytes:
        """Raises the driver's `DataError`, and closes the result, when it is too long."""
        frame = wire.encode(answer)
        limit = self._boot.frame_bytes
        if len(frame) > limit - len(wire.DONE):
            result.close()
            raise self._served.module.DataError(
                f"a row is too long for the proxy, {len(frame)} bytes where frame_bytes is {limit}; {so}: select less of it, or "
                "raise frame_bytes"
            )
        return frame

    def _send_part(self, answer: wire.Result | wire.Rows, result: Open) -> bool:
        """True when there is more to send."""
        self._line.send(self._frame_of(answer, result, "the rest of the result is closed"), wire.DONE)
        return answer.more

    def _send_rows(self, number: int) -> None:
        result = self._results.find(number)
        if not self._send_part(wire.Rows(*result.next_rows(CHUNK_BYTES)), result):
            self._results.drop([number])

    def _run_function(self, request: wire.Run) -> None:
        served = self._served
        function = function_of(request.module, request.name)
        if request.commits:
            served.begin()
        try:
            with served.lent():
                value = function(served.connection, *request.arguments)
            answer = self._returned(value, request)
            if request.commits:
                self._end(commit=True)
        except BaseException:
            if request.commits:
                # One that cannot even roll back is closed, or broken, which is looked at next.
                with suppress(Exception):
                    self._end(commit=False)
            raise
        if not request.commits:
            served.undo()
        self._line.send(answer, wire.DONE)

    def _returned(self, value: Any, request: wire.Run) -> bytes:
        """A function's value on its way, which must not fail behind a commit. Raises `TypeError`, and the driver's `DataError`."""
        so = "the function has run" + (", and its transaction was rolled back: " if request.commits else ": ")
        try:
            answer = wire.encode(wire.Value(packed(value)))
        except TypeError as error:
            msg = f"{error}; {so}return something else"
            raise TypeError(msg) from None
        if len(answer) > self._boot.frame_bytes - len(wire.DONE):
            raise self._served.module.DataError(
                f"what the function returned is too long for the proxy, {len(answer)} bytes where frame_bytes is "
                f"{self._boot.frame_bytes}; {so}return less, or raise frame_bytes"
            )
        return answer

    def _carried(self, rows: list[Any]) -> list[Any]:
        # SQLite's values are msgpack's, unless somebody asked for its converters.
        if self._served.is_sqlite and "detect_types" not in self._boot.options:
            return rows
        return [packed_row(row) for row in rows]

    def _send(self, answer: wire.Answer, mark: bytes = wire.DONE) -> None:
        self._line.send(wire.encode(answer), mark)

    def _failed(self, error: BaseException) -> wire.Failed:
        driver = sys.modules.get(self._boot.driver)
        module, name = type(error).__module__, type(error).__name__
        for kind in type(error).__mro__[:-3]:
            # The nearest that the driver offers by name, as PEP 249 wants it; its own families are finer.
            if getattr(driver, kind.__name__, None) is kind:
                module, name = "driver", kind.__name__
                break
        text = "".join(traceback.format_exception(error))
        return wire.Failed(
            module,
            name,
            [argument if isinstance(argument, int | str) else str(argument) for argument in error.args],
            getattr(error, "sqlite_errorcode", None),
            text.encode(errors="backslashreplace")[-16_384:].decode(errors="ignore"),
        )


def _described(value: Any) -> Any:
    """A column's type code may be any object of the driver's; as a number or a text it crosses."""
    return value if value is None or isinstance(value, int | str) else str(value)


def main() -> None:
    """The program: `fd` of the socket, `fd` of the lifeline, then the application's `sys.path`."""
    ignore_stop_signals()
    die_at_hangup(int(sys.argv[2]))
    sock = socket.socket(fileno=int(sys.argv[1]))
    # What a function calls sees no numbers of ours.
    del sys.argv[1:]
    Subprocess(sock).run()
