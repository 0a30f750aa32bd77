"""(a) Insert and select in one transaction, a message: own connection, channel, and opening a connection each time.

One worker as the reactor has it, in a process of its own, with the loop in another; batches of messages from their
bodies to their marks, the three ways in turn.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.event import listen
from sqlalchemy.pool import NullPool

from benchmarks.database import crud_handlers
from benchmarks.database.findings import Effort, Finding, at_least, in_turn, quotient
from benchmarks.database.loop import Work, run_workers, section_of
from benchmarks.database.private_servers import SERVERS, private
from penstock.channels.jobs import Batch, Job
from penstock.channels.plan import WorkerPlan
from penstock.channels.recorder import MAX_BATCH, Mark, Recorder
from penstock.config.database import DatabaseSection
from penstock.config.limits import LimitsSection
from penstock.workers import entry

OWN: Final = "own"
WAYS: Final = (OWN, "channel", "each")


def measure(folder: Path, effort: Effort) -> Iterator[Finding]:
    """On SQLite and both servers."""
    messages = 20 if effort.is_quick else 200
    yield from on("SQLite", f"sqlite:///{folder / 'crud.db'}", messages, effort.rounds)
    for name, kind in SERVERS.items():
        with private(kind) as (_, url):
            yield from on(name, url, messages, effort.rounds)


def on(database: str, url: str, messages: int, rounds: int) -> Iterator[Finding]:
    """All three on one database."""
    engine = create_engine(url, poolclass=NullPool)
    crud_handlers.metadata.create_all(engine)
    # Of the disk the servers see as little.
    section = section_of(url, synchronous="NORMAL")
    (rates,) = run_workers(section, 1, worker(section, messages, rounds)).results
    middle = {way: statistics.median(rates[way]) for way in WAYS}
    yield at_least(
        "a",
        f"{database}: own connection, against opening one a message",
        quotient(rates[OWN], rates["each"]),
        1.0,
        f"{middle[OWN]:,.0f} against {middle['each']:,.0f} messages/s",
    )
    yield Finding(
        "a",
        f"{database}: channel, against own connection",
        f"{quotient(rates['channel'], rates[OWN]):.2f} times ({middle['channel']:,.0f} messages/s)",
    )


def worker(section: DatabaseSection, messages: int, rounds: int) -> Work:
    """A worker process: messages a second of each way, a figure a round."""

    def work(_: int, sock: socket.socket) -> dict[str, list[float]]:
        plan = WorkerPlan(
            app="benchmarks.database.crud_handlers:app",
            queues=WAYS,
            slot="bench",
            database=section,
            limits=LimitsSection(),
            start_method="fork",
            log_level="info",
            in_process=True,
        )
        recorder = Recorder.create()
        recorder.set_stop(MAX_BATCH)
        state = SimpleNamespace(engine=engine_of(section))
        process = entry.Worker(plan, sock.detach(), os.dup(recorder.fd), state=state)
        process.boot()
        ids = itertools.count(1)
        try:
            for way in range(len(WAYS)):
                rate(process, way, ids, 10)
            return in_turn(
                {way: partial(rate, process, index, ids, messages) for index, way in enumerate(WAYS)}, rounds
            )
        finally:
            process.close()

    return work


def engine_of(section: DatabaseSection) -> Engine:
    """Opens a connection each time, as quickly as its driver can."""
    assert section.url is not None
    url = make_url(section.url.get_secret_value())
    # PyMySQL reads all certificates that the machine trusts for each connection, unless told that none is wanted.
    options = {"ssl_disabled": True} if url.drivername == "mysql+pymysql" else {}
    engine = create_engine(url, poolclass=NullPool, connect_args=options)
    if url.drivername == "sqlite":
        listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
    return engine


def rate(process: entry.Worker, handler: int, ids: Iterator[int], count: int) -> float:
    """Messages a second."""
    jobs = [
        Job(
            handler,
            json.dumps({"id": number, "name": f"name {number}"}).encode(),
            str(number),
            "application/json",
            None,
            {},
            1,
            False,
            None,
            None,
            None,
            None,
        )
        for number in itertools.islice(ids, count)
    ]
    began_s = time.perf_counter()
    report = process.run(Batch(1, jobs))
    took_s = time.perf_counter() - began_s
    assert set(report.marks) == {Mark.ACKED}, report
    return count / took_s
