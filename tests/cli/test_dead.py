"""`penstock dead`: letters are listed, shown, sent back and dropped; none is lost on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from penstock.app import header_names
from penstock.app.messages import Outgoing
from penstock.app.queues import Binding, QueueDeclaration
from penstock.cli.exits import Exit
from tests.cli.program import Folder, Running, until
from tests.cli.services import declare, depths, put, waiting


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, folder: Folder) -> str:
    if request.param == "embedded":
        return f"sqlite:///{folder.path / 'bus.db'}"
    url: str = request.getfixturevalue("amqp_url")
    return url


@pytest.fixture
def embedded(folder: Folder) -> str:
    url = f"sqlite:///{folder.path / 'bus.db'}"
    declare(url, "orders")
    return url


@pytest.fixture
def service(folder: Folder, bus_url: str) -> Iterator[Running]:
    """A service whose handler fails until somebody repairs what it needs."""
    with folder.running("shop", "--only", "fails", "--only", "orders", "--bus", bus_url) as running:
        running.wait_line('"consuming"')
        yield running
        running.terminate()
        assert running.wait() == 0


def test_a_letter_is_listed_shown_and_replayed_with_its_attempts_reset(
    folder: Folder, bus_url: str, service: Running
) -> None:
    # Given a message that failed twice, with a header of its own
    words = ["--id", "order-7", "--header", "source=shop", "--bus", bus_url]
    folder.penstock("publish", "fails", '{"id": 7}', *words)
    service.wait_line("message dead lettered")

    # When it is looked at
    listed = folder.penstock("dead", "list", "fails", "--bus", bus_url)
    shown = folder.penstock("dead", "show", "fails", "order-7", "--bus", bus_url)

    # Then everything is there, and the letter, too
    assert (listed.returncode, listed.stderr) == (Exit.OK, "")
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith("order-7")]
    assert "no customer 7 (after 2 attempts)" in line
    assert re.search(r"ValueError  2 +20\d\d-", line)
    for said in (
        "ValueError: no customer 7",
        "Traceback",
        "shop.py",
        "source",
        '"id": 7',
        "x-penstock-handler",
        "shop.fails",
    ):
        assert said in shown.stdout
    assert depths(bus_url, "fails.dead") == [1]

    # And when its cause is repaired, it goes back as it came
    folder.write("repaired", "")
    replayed = folder.penstock("dead", "replay", "fails", "--id", "order-7", "--bus", bus_url)
    assert (replayed.returncode, replayed.stdout) == (Exit.OK, "replayed: 1 dead letter to queue 'fails'\n")
    folder.wait_note("repaired 7 attempt 1 headers ['source']")
    assert depths(bus_url, "fails.dead") == [0]


def test_all_letters_are_replayed_once_even_those_that_fail_again(
    folder: Folder, bus_url: str, service: Running
) -> None:
    folder.write("fails.jsonl", "".join(f'{{"id": {n}}}\n' for n in range(30)))
    folder.penstock("publish", "fails", "--file", "fails.jsonl", "--bus", bus_url)
    until(lambda: depths(bus_url, "fails.dead") == [30], "30 dead letters")

    # Nothing is repaired: each of them comes in again behind those that still wait.
    replayed = folder.penstock("dead", "replay", "fails", "--bus", bus_url)

    assert (replayed.returncode, replayed.stdout) == (Exit.OK, "replayed: 30 dead letters to queue 'fails'\n")
    until(lambda: depths(bus_url, "fails.dead") == [30], "30 dead letters again")


def test_a_letter_that_cannot_be_read_has_a_body_to_look_at(
    folder: Folder, bus_url: str, service: Running
) -> None:
    put(
        bus_url,
        [Outgoing("orders", b"\xff\x00not text", message_id="bytes", content_type="application/json")],
    )
    service.wait_line("message dead lettered")

    shown = folder.penstock("dead", "show", "orders", "bytes", "--bus", bus_url)
    body = folder.penstock("dead", "show", "orders", "bytes", "--body", "--bus", bus_url)

    assert "ff00 6e6f 7420 7465 7874" in shown.stdout
    assert "the body is not UTF-8" in shown.stdout
    assert body.stdout == "\udcff\x00not text"


def test_letters_are_dropped_only_when_somebody_says_so(
    folder: Folder, bus_url: str, service: Running
) -> None:
    for name in ("a", "b", "c"):
        folder.penstock("publish", "orders", '{"id": "x"}', "--id", name, "--bus", bus_url)
    until(lambda: depths(bus_url, "orders.dead") == [3], "3 dead letters")

    vague = folder.penstock("dead", "drop", "orders", "--bus", bus_url)
    unasked = folder.penstock("dead", "drop", "orders", "--all", "--bus", bus_url)
    assert (vague.returncode, unasked.returncode) == (Exit.USAGE, Exit.USAGE)
    assert "3 dead letters of orders would be gone for good" in unasked.stderr
    assert depths(bus_url, "orders.dead") == [3]

    one = folder.penstock("dead", "drop", "orders", "--id", "b", "--bus", bus_url)
    assert (one.returncode, one.stdout) == (Exit.OK, "dropped: 1 dead letter of orders\n")
    assert sorted(str(letter.message_id) for letter in waiting(bus_url, "orders.dead")) == ["a", "c"]

    rest = folder.penstock("dead", "drop", "orders.dead", "--all", "--yes", "--bus", bus_url)
    assert (rest.returncode, rest.stdout) == (Exit.OK, "dropped: 2 dead letters of orders\n")
    assert depths(bus_url, "orders.dead") == [0]


def letter(
    message_id: str = "", *, origin: str = "orders", reason: str = "because", body: bytes = b"{}"
) -> Outgoing:
    """A dead letter as the settlement writes it."""
    headers = {header_names.REASON: reason, header_names.QUEUE: origin, header_names.ATTEMPTS: 1}
    return Outgoing("orders.dead", body, message_id=message_id, headers=headers)


def test_a_replay_that_is_refused_loses_nothing(folder: Folder, embedded: str) -> None:
    # Given letters for a queue that is there and for one that is not
    put(embedded, [letter("good"), letter("stranded", origin="gone"), letter("good too")])

    done = folder.penstock("dead", "replay", "orders")

    assert done.returncode == Exit.NOT_PUBLISHED
    assert "stopped: 2 dead letters to queue 'orders'; the others are still dead letters" in done.stderr
    assert "there is no queue 'gone'" in done.stderr
    assert [found.message_id for found in waiting(embedded, "orders.dead")] == ["stranded"]
    assert [found.message_id for found in waiting(embedded, "orders")] == ["good", "good too"]


def test_what_an_exchange_could_not_route_goes_back_to_that_exchange(folder: Folder, embedded: str) -> None:
    # Given an exchange with a queue, and a letter that came before the binding
    declare(embedded, QueueDeclaration(name="late", bindings=(Binding("shop", "order.*"),)))
    headers = {
        header_names.REASON: "unroutable",
        header_names.QUEUE: "order.paid",
        header_names.EXCHANGE: "shop",
    }
    put(embedded, [Outgoing("orders.dead", b"{}", message_id="stray", headers=headers)])

    done = folder.penstock("dead", "replay", "orders")

    assert done.stdout == "replayed: 1 dead letter to exchange 'shop' with routing key 'order.paid'\n"
    assert [found.message_id for found in waiting(embedded, "late")] == ["stray"]


def test_a_replay_goes_through_more_letters_than_are_held_at_once(folder: Folder, embedded: str) -> None:
    put(embedded, [letter(f"m{n}") for n in range(1200)])

    done = folder.penstock("dead", "replay", "orders")

    assert done.stdout == "replayed: 1,200 dead letters to queue 'orders'\n"
    assert depths(embedded, "orders", "orders.dead") == [1200, 0]


def test_filters_choose_what_is_listed_replayed_and_dropped(folder: Folder, embedded: str) -> None:
    put(embedded, [letter(f"m{n}", reason=f"no {n % 3}", body=b'{"n": %d}' % n) for n in range(9)])

    listed = folder.penstock("dead", "list", "orders", "--reason", "NO 1", "--where", "n=4")
    nothing = folder.penstock("dead", "list", "orders", "--exception", "ValueError")
    replayed = folder.penstock("dead", "replay", "orders", "--reason", "no 2", "--rate", "50", "--limit", "2")
    asked = folder.penstock("dead", "drop", "orders", "--reason", "no 0")
    dropped = folder.penstock("dead", "drop", "orders", "--reason", "no 0", "--yes")

    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["id", "m4"]
    assert (nothing.returncode, nothing.stdout) == (Exit.OK, "")
    assert "none of the 9 dead letters of 'orders' matches" in nothing.stderr
    assert replayed.stdout == "replayed: 2 dead letters to queue 'orders'\n"
    assert asked.returncode == Exit.USAGE
    assert "3 dead letters of orders would be gone for good: say --yes" in asked.stderr
    assert dropped.stdout == "dropped: 3 dead letters of orders\n"
    assert [one.message_id for one in waiting(embedded, "orders.dead")] == ["m1", "m4", "m7", "m8"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "orders", "--where", "total"), "write FIELD=VALUE"),
        (("list", "orders", "--since", "soon"), "is no moment"),
        (("replay", "orders", "--rate", "0"), "--rate is a positive number"),
        (("drop", "orders", "--all", "--id", "m1"), "say which"),
        (("drop", "orders"), "say which"),
    ],
)
def test_a_filter_that_says_nothing_changes_nothing(
    folder: Folder, embedded: str, words: tuple[str, ...], said: str
) -> None:
    put(embedded, [letter("m1")])

    done = folder.penstock("dead", *words)

    assert done.returncode == Exit.USAGE
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert depths(embedded, "orders", "orders.dead") == [0, 1]


def test_what_a_letter_went_through_and_how_its_worker_died_is_shown(folder: Folder, embedded: str) -> None:
    headers = {
        header_names.REASON: "the worker died",
        header_names.CRASH: "signal 11, SIGSEGV: a segmentation fault",
        header_names.CRASH_PEAK: "81.5 MiB",
        header_names.CRASH_STACK: "Current thread 0x1 (most recent call first):\n  File shop.py",
        header_names.REPLAYS: 1,
        header_names.PAST: '[{"failed_at": "2026-11-20", "reason": "no chairs", "attempts": 5, "replayed_at": "2026-11-21"}]',
    }
    put(embedded, [Outgoing("orders.dead", b"{}", message_id="m1", headers=headers)])

    shown = folder.penstock("dead", "show", "orders", "m1").stdout

    assert "signal 11, SIGSEGV: a segmentation fault" in shown
    assert "81.5 MiB" in shown
    assert "Current thread 0x1" in shown
    assert "no chairs (5 attempts; replayed 2026-11-21)" in shown


def test_a_message_without_an_id_is_found_by_what_it_says(folder: Folder, embedded: str) -> None:
    put(embedded, [letter(body=b"first"), letter(body=b"second")])

    listed = folder.penstock("dead", "list", "orders")
    ids = [line.split()[0] for line in listed.stdout.splitlines()[1:]]
    shown = folder.penstock("dead", "show", "orders", ids[1])
    dropped = folder.penstock("dead", "drop", "orders", "--id", ids[0])

    assert all(name.startswith("sha256:") for name in ids)
    assert "second" in shown.stdout
    assert dropped.returncode == Exit.OK
    assert [found.body for found in waiting(embedded, "orders.dead")] == [b"second"]


def test_a_list_is_cut_at_its_limit_and_says_so(folder: Folder, embedded: str) -> None:
    put(embedded, [letter(f"m{n}") for n in range(5)])

    listed = folder.penstock("dead", "list", "orders", "--limit", "2")

    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["id", "m0", "m1"]
    assert "the oldest 2 of 5 are shown" in listed.stderr


def test_what_is_not_there_is_said(folder: Folder, embedded: str) -> None:
    put(embedded, [letter("there")])

    absent = folder.penstock("dead", "show", "orders", "absent")
    unknown = folder.penstock("dead", "list", "ordres")

    assert absent.returncode == Exit.NO
    assert "no dead letter of 'orders' has the id 'absent'" in absent.stderr
    assert unknown.returncode == Exit.NO
    assert "there is no dead-letter queue 'ordres.dead' on this bus" in unknown.stderr


def test_a_message_cannot_move_the_cursor_of_a_terminal(folder: Folder, embedded: str) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07 a reason\r\nand more"
    put(embedded, [letter("evil", reason=evil, body=b"\x1b[31mred [bold]brackets[/bold]")])

    listed = folder.on_a_terminal("dead", "list", "orders")
    shown = folder.on_a_terminal("dead", "show", "orders", "evil")

    for written in (listed, shown):
        assert "\x1b[2J" not in written
        assert "\x1b]0;" not in written
        assert "\\x1b[2J" in written
    assert "\\x1b[31mred [bold]brackets[/bold]" in shown
