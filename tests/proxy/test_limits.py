"""Nothing waits for ever, nothing grows without bound, and nonsense on a socket hurts nobody but its sender."""

from __future__ import annotations

import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import psutil
import pytest

from penstock import SQLProxy
from penstock.channels.frames import encode_frame
from penstock.errors import FrameError
from penstock.proxy import wire
from penstock.proxy.line import Line
from penstock.proxy.results import Open, Results
from penstock.proxy.serving import Subprocess
from tests.proxy import functions

NUMBERS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) SELECT i, 'row ' || i FROM n"
)


def test_a_transaction_that_is_idle_for_too_long_loses_to_one_that_waits(path: Path) -> None:
    with SQLProxy(path, processes=1, transaction_idle_s=0.3) as proxy:
        with (  # noqa: PT012 - the end of the block raises
            pytest.raises(sqlite3.OperationalError, match="without a statement for too long"),
            proxy.transaction() as idle,
        ):
            idle.execute("DELETE FROM t")
            with ThreadPoolExecutor(1) as pool:
                pool.submit(proxy.execute, "INSERT INTO t (x) VALUES (1)").result(20)
            idle.execute("DELETE FROM t")
        assert proxy.execute("SELECT count(*) FROM t") == [(1001,)]


def test_a_transaction_that_is_idle_for_too_long_lets_other_programs_write(path: Path) -> None:
    with SQLProxy(path, processes=1, transaction_idle_s=0.2) as proxy:
        with pytest.raises(sqlite3.OperationalError, match="rolled back"), proxy.transaction() as idle:  # noqa: PT012 - the end of the block raises
            idle.execute("DELETE FROM t")
            with closing(sqlite3.connect(path, timeout=20)) as other, other:
                other.execute("INSERT INTO t (x) VALUES (1)")
        assert proxy.execute("SELECT count(*) FROM t") == [(1001,)]


def test_a_transaction_that_works_is_not_idle(path: Path) -> None:
    with SQLProxy(path, processes=1, transaction_idle_s=0.3) as proxy, ThreadPoolExecutor(1) as pool:
        with proxy.transaction() as tx:
            waiting = pool.submit(proxy.execute, "INSERT INTO t (x) VALUES (1)")
            began_s = time.monotonic()
            while time.monotonic() - began_s < 1:
                tx.execute("SELECT 1")
                threading.Event().wait(0.05)
        waiting.result(20)


def test_a_thread_that_would_wait_for_its_own_transaction_is_told_at_once(proxy: SQLProxy) -> None:
    began_s = time.monotonic()
    with proxy.transaction() as tx:
        tx.execute("DELETE FROM t WHERE x = 1")
        with pytest.raises(sqlite3.ProgrammingError, match="would wait for itself"):
            proxy.execute("INSERT INTO t (x) VALUES (1)")
        with pytest.raises(sqlite3.ProgrammingError, match="would wait for itself"):
            proxy.transaction()
    assert time.monotonic() - began_s < 4
    assert proxy.execute("SELECT count(*) FROM t") == [(999,)]


def test_a_half_read_result_of_a_transaction_does_not_lock_the_next_one_out(
    proxy: SQLProxy, path: Path
) -> None:
    # A writer that still reads what another program has changed since is told at once that the database is locked.
    proxy.executemany("INSERT INTO t (x) VALUES (?)", ((f"row {x}",) for x in range(30_000)))
    connection = proxy.connect()
    connection.execute("UPDATE t SET x = 0 WHERE x = 0")
    rest = connection.execute("SELECT x FROM t")
    assert rest.fetchone() == (0,)
    connection.commit()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("INSERT INTO t (x) VALUES (1)")

    proxy.execute("INSERT INTO t (x) VALUES (2)")
    assert len(rest.fetchall()) == 30_999
    connection.close()


def test_a_result_that_nobody_reads_on_is_closed() -> None:
    results = Results(limit=9, idle_s=9, error=sqlite3.OperationalError)
    with closing(sqlite3.connect(":memory:")) as connection:
        results.add(1, Open(connection.execute("SELECT 1"), list, limit_bytes=9999))
        results.drop_abandoned()
        assert len(results) == 1
        results.drop_abandoned(after_s=0)
        with pytest.raises(sqlite3.OperationalError, match="idle for too long"):
            results.find(1)


def test_a_thread_that_waits_too_long_for_a_process_is_told_who_has_them(path: Path) -> None:
    with SQLProxy(path, processes=1, wait_s=0.3) as proxy, ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(proxy.run, functions.sleep, 1.5)
        while not proxy.pids:
            threading.Event().wait(0.01)
        with pytest.raises(
            sqlite3.OperationalError, match=r"free within 0\.3 s, all 1 were held: 1 by single calls"
        ):
            proxy.execute("SELECT 1")
        sleeping.result(20)
        assert proxy.execute("SELECT 1") == [(1,)]


def test_a_thread_that_waits_too_long_for_a_transaction_is_told_whose_it_is(path: Path) -> None:
    with (
        SQLProxy(path, processes=1, wait_s=0.3) as proxy,
        ThreadPoolExecutor(1, thread_name_prefix="holder") as pool,
        pool.submit(proxy.transaction).result(20),
        pytest.raises(
            sqlite3.OperationalError, match=r"by a transaction of thread holder_0, whose last .* ago"
        ),
    ):
        proxy.execute("INSERT INTO t (x) VALUES (1)")


def test_threads_are_served_in_the_order_of_their_asking(path: Path) -> None:
    served: list[int] = []
    with SQLProxy(path, processes=1) as proxy, ThreadPoolExecutor(6) as pool:
        proxy.execute("SELECT 1")
        holder = pool.submit(proxy.run, functions.sleep, 0.5)
        waiters = proxy.pool(writes=False)._waiters

        def work(number: int) -> None:
            proxy.execute("SELECT 1")
            served.append(number)

        while proxy.pool(writes=False)._idle:
            threading.Event().wait(0.005)
        for number in range(5):
            pool.submit(work, number)
            while len(waiters) <= number and not holder.done():
                threading.Event().wait(0.005)
    assert served == [0, 1, 2, 3, 4]


def test_a_result_is_streamed_in_bounded_memory_on_both_sides(path: Path) -> None:
    with SQLProxy(path, processes=1) as proxy:
        connection = proxy.connect()
        connection.execute(NUMBERS.format(100)).fetchall()
        before = psutil.Process().memory_info().rss / 2**20, proxy.run(functions.rss_mib)
        count = 0
        for count, _row in enumerate(connection.execute(NUMBERS.format(1_000_000)), start=1):
            if count == 900_000:
                mine, theirs = psutil.Process().memory_info().rss / 2**20, proxy.run(functions.rss_mib)
                assert mine - before[0] < 30
                assert theirs - before[1] < 30
        assert count == 1_000_000
        connection.close()


def test_a_half_read_result_holds_nobody_up(path: Path) -> None:
    with SQLProxy(path, processes=1) as proxy:
        connection = proxy.connect()
        cursor = connection.execute(NUMBERS.format(100_000))
        assert cursor.fetchone() == (1, "row 1")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(proxy.execute, "SELECT 1").result(20) == [(1,)]
        assert len(cursor.fetchall()) == 99_999
        connection.close()


def test_half_read_results_are_counted_and_closed_ones_forgotten(path: Path) -> None:
    with SQLProxy(path, processes=1, results=10, transaction_idle_s=60) as proxy:
        connection = proxy.connect()
        cursors = [connection.execute(NUMBERS.format(50_000)) for _ in range(10)]
        with pytest.raises(sqlite3.OperationalError, match="10 results are open in one subprocess"):
            connection.execute(NUMBERS.format(50_000))
        assert len(connection.execute("SELECT x FROM t WHERE x < 100").fetchall()) == 100
        cursors.pop().close()
        del cursors[0]
        cursors += [connection.execute(NUMBERS.format(50_000)) for _ in range(2)]
        assert len(cursors[-1].fetchall()) == 50_000
        connection.close()


def test_results_that_were_left_alone_make_room_and_say_so(path: Path) -> None:
    with SQLProxy(path, processes=1, results=2, transaction_idle_s=0.1) as proxy:
        connection = proxy.connect()
        old = [connection.execute(NUMBERS.format(50_000)) for _ in range(2)]
        threading.Event().wait(0.2)
        new = connection.execute(NUMBERS.format(50_000))
        with pytest.raises(sqlite3.OperationalError, match="the rest of this result is gone"):
            old[0].fetchall()
        assert len(new.fetchall()) == 50_000
        connection.close()


def test_a_row_or_a_parameter_that_is_too_long_fails_its_statement_alone(path: Path) -> None:
    with SQLProxy(path, processes=1, frame_bytes=2 * 1024 * 1024) as proxy:
        with pytest.raises(sqlite3.DataError, match=r"nothing was sent"):
            proxy.execute("SELECT length(?)", (bytes(3 * 1024 * 1024),))
        with pytest.raises(sqlite3.DataError, match="a row is too long for the proxy"):
            proxy.execute("SELECT zeroblob(3000000)")
        assert proxy.execute("SELECT length(zeroblob(3000000))") == [(3_000_000,)]
        rows = proxy.execute("SELECT zeroblob(500000) FROM t LIMIT 12")
        assert [len(blob) for (blob,) in rows] == [500_000] * 12
        # Short ones first, so that many are read at once when the long ones come; one needs nearly a whole frame.
        rows = proxy.execute(
            "WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 1030) "
            "SELECT i, zeroblob(CASE WHEN i <= 1000 THEN 1 WHEN i = 1010 THEN 2000000 ELSE 500000 END) FROM n"
        )
        assert [number for number, _ in rows] == list(range(1, 1031))
        assert [len(blob) for _, blob in rows[1000:]] == [500_000] * 9 + [2_000_000] + [500_000] * 20


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


BOOT = encode_frame(
    wire.encode(wire.Boot("sqlite3", "x.db", {}, writes=True, frame_bytes=10_000, idle_s=1, results=1)),
    limit_bytes=10_000,
)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!BI", 1, 2**32 - 1),
        struct.pack("!BI", 9, 5) + b"hello",
        encode_frame(b"\xc1", limit_bytes=99),
        encode_frame(wire.encode(wire.Value(1)), limit_bytes=99),
        struct.pack("!BI", 1, 50) + b"half",
        b"\x01",
        b"",
    ],
)
@pytest.mark.parametrize("booted", [False, True])
def test_a_subprocess_ends_at_nonsense_and_allocates_nothing_for_it(
    ends: tuple[socket.socket, socket.socket],
    nonsense: bytes,
    booted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    ours, theirs = ends
    ours.sendall((BOOT if booted else b"") + nonsense)
    ours.shutdown(socket.SHUT_WR)
    before = psutil.Process().memory_info().rss
    # A process of its own would end with what is raised.
    with suppress(FrameError, msgspec.DecodeError, AssertionError):
        Subprocess(theirs).run()
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_two_questions_that_come_at_once_are_both_answered_at_once(
    ends: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was read with the first one is no longer in the socket, where a poll would wait for it.
    monkeypatch.chdir(tmp_path)
    ours, theirs = ends
    begin, drop = (wire.encode(request) for request in (wire.Begin(), wire.Drop([1])))
    ask = wire.encode(wire.Statement("SELECT 1", [], many=False, cursor=0, commits=False))
    ours.sendall(
        BOOT + b"".join(encode_frame(frame, limit_bytes=999) for frame in (begin, drop, ask, drop, ask))
    )
    thread = threading.Thread(target=Subprocess(theirs).run)
    thread.start()
    line = Line(ours, limit_bytes=9999)
    answers = [wire.decode_answer(line.receive()[1:]) for _ in range(4)]
    ours.shutdown(socket.SHUT_WR)
    thread.join()
    assert answers[:2] == [wire.Value(), wire.Value()]
    assert [answer.rows for answer in answers[2:] if isinstance(answer, wire.Result)] == [[(1,)], [(1,)]]


def test_an_answer_that_comes_byte_by_byte_is_put_together(ends: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = ends
    line = Line(theirs, limit_bytes=1000)
    data = (
        encode_frame(b"one", limit_bytes=99)
        + encode_frame(b"", limit_bytes=99)
        + encode_frame(b"x" * 500, limit_bytes=999)
    )

    def trickle() -> None:
        for number in range(len(data)):
            ours.sendall(data[number : number + 1])
        ours.sendall(data)

    thread = threading.Thread(target=trickle)
    thread.start()
    assert [bytes(line.receive()) for _ in range(6)] == [b"one", b"", b"x" * 500] * 2
    thread.join()
    ours.sendall(struct.pack("!BI", 1, 1001))
    with pytest.raises(FrameError, match="1001 bytes was announced"):
        line.receive()
