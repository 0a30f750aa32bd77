"""A replay that is cut off in the middle: nothing is lost, ids stay, and the same command goes on."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.app import header_names
from penstock.app.messages import Outgoing
from penstock.cli.exits import Exit
from penstock.reactor import deadletter
from tests.broker import Broker
from tests.cli.program import DEADLINE_S, SCRIPT, Folder, until
from tests.cli.services import declare, depths, put, waiting

LETTERS = 4000
NAMES = {f"m{n}" for n in range(LETTERS)}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.environment["PENSTOCK_BUS__LEASE_S"] = "2"
    return folder


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, folder: Folder) -> str:
    if request.param == "embedded":
        return f"sqlite:///{folder.path / 'bus.db'}"
    url: str = request.getfixturevalue("amqp_url")
    return url


def put_letters(url: str) -> None:
    declare(url, "orders")
    headers = {header_names.REASON: "because", header_names.QUEUE: "orders", header_names.ATTEMPTS: 5}
    for start in range(0, LETTERS, 2000):
        put(
            url,
            [
                Outgoing(
                    "orders.dead",
                    b'{"n": %d, "even": %s}' % (n, b"true" if n % 2 == 0 else b"false"),
                    message_id=f"m{n}",
                    headers={**headers, header_names.LAST_AT: deadletter.moment(1_700_000_000 + n)},
                )
                for n in range(start, start + 2000)
            ],
        )


@contextmanager
def replaying(folder: Folder, url: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A replay that has begun to send."""
    with subprocess.Popen(
        [str(SCRIPT), "dead", "replay", "orders", "--bus", url, *words],
        cwd=folder.path,
        env=folder.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until(lambda: bool(depths(url, "orders")[0]), "the first letters to be back")
            yield process
        finally:
            process.kill()


def places(url: str) -> tuple[Counter[str], Counter[str]]:
    """Ids that are back in their queue, and ids of dead letters."""
    back, dead = (waiting(url, queue) for queue in ("orders", "orders.dead"))
    return Counter(str(one.message_id) for one in back), Counter(str(one.message_id) for one in dead)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_replay_that_is_interrupted_loses_nothing_and_goes_on(
    folder: Folder, bus_url: str, number: signal.Signals
) -> None:
    # Given more letters than a moment can replay
    put_letters(bus_url)

    # When it ends in the middle
    with replaying(folder, bus_url, "--rate", "1000") as process:
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE_S)

    # Then every message is in one of the two places; in both, when it was confirmed and not yet taken out
    until(lambda: set().union(*places(bus_url)) == NAMES, "every message in one of the two queues")
    back, dead = places(bus_url)
    assert back
    assert dead
    both = back.keys() & dead.keys()
    if number is signal.SIGINT:
        assert process.returncode == Exit.INTERRUPTED
        assert re.match(
            r"penstock: interrupted: .* to queue 'orders'; the others are still dead letters; the same command goes on",
            said,
        )
        assert not both

    # And the same command goes on
    done = folder.penstock("dead", "replay", "orders", "--bus", bus_url)
    assert done.returncode == Exit.OK
    back, dead = places(bus_url)
    assert (set(back), set(dead)) == (NAMES, set())
    # Twice what was in both places, and it can be recognised: the id is the same.
    assert {name for name, count in back.items() if count > 1} == both


@pytest.mark.parametrize("words", [(), ("--where", "even=true")])
def test_a_replay_outlives_a_restart_of_the_broker(
    folder: Folder, own_broker: Broker, words: tuple[str, ...]
) -> None:
    put_letters(own_broker.url)
    own_broker.sync_declarations()

    with replaying(folder, own_broker.url, "--rate", "1000", *words) as process:
        own_broker.kill()
        own_broker.start()
        told, said = process.communicate(timeout=DEADLINE_S)

    if process.returncode == Exit.NOT_PUBLISHED:
        # It did not want to wait for so long; it says so, and goes on when it is asked to.
        assert "the others are still dead letters" in said
        told = folder.penstock("dead", "replay", "orders", "--bus", own_broker.url, *words).stdout
    assert "replayed: " in told, said
    back, dead = places(own_broker.url)
    wanted = {f"m{n}" for n in range(0, LETTERS, 2)} if words else NAMES
    assert (wanted - back.keys(), back.keys() - wanted) == (set(), set()), said
    assert (NAMES - wanted - dead.keys(), dead.keys() & wanted) == (set(), set()), said
    # Those of one round, whose confirms or acks the broker took with it.
    assert sum(back.values()) - len(back) <= 1000


def test_a_filter_that_matches_few_of_many_needs_little_memory(folder: Folder, bus_url: str) -> None:
    put_letters(bus_url)
    few = folder.penstock("dead", "replay", "orders", "--bus", bus_url, "--where", "n=3")
    assert few.returncode == Exit.OK
    before_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss

    done = folder.penstock("dead", "replay", "orders", "--bus", bus_url, "--where", f"n={LETTERS - 1}")

    assert done.stdout == "replayed: 1 dead letter to queue 'orders'\n"
    assert [one.message_id for one in waiting(bus_url, "orders")] == ["m3", f"m{LETTERS - 1}"]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before_kib, 200 * 1024) + 50 * 1024
    left = [str(one.message_id) for one in waiting(bus_url, "orders.dead")]
    assert left == [f"m{n}" for n in range(LETTERS) if n not in (3, LETTERS - 1)]
