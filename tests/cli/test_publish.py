"""`penstock publish`: one message or a file of them, and what is said when a line is no message."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from penstock.cli.exits import Exit
from tests.cli.program import DEADLINE_S, SCRIPT, Folder, until
from tests.cli.services import declare, depths, waiting


@pytest.fixture(params=["embedded", "rabbitmq"])
def bus_url(request: pytest.FixtureRequest, folder: Folder) -> str:
    """A bus with a queue for orders."""
    url: str = (
        f"sqlite:///{folder.path / 'bus.db'}"
        if request.param == "embedded"
        else request.getfixturevalue("amqp_url")
    )
    declare(url, "orders")
    return url


def test_a_message_is_confirmed_with_what_it_was_given(folder: Folder, bus_url: str) -> None:
    words = ["--id", "order-1", "--header", "source=shell", "--header", "empty=", "--bus", bus_url]

    done = folder.penstock("publish", "orders", '{"total": 1.10}', *words)

    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout == "confirmed: queue 'orders', id order-1\n"
    (delivery,) = waiting(bus_url, "orders")
    assert delivery.body == b'{"total": 1.10}'
    assert (delivery.message_id, delivery.content_type) == ("order-1", "application/json")
    assert dict(delivery.headers) == {"source": "shell", "empty": ""}


def test_a_queue_that_nobody_has_declared_is_no_place_for_a_message(folder: Folder, bus_url: str) -> None:
    done = folder.penstock("publish", "ordres", "{}", "--bus", bus_url)

    assert done.returncode == Exit.NOT_PUBLISHED
    assert "'ordres'" in done.stderr
    assert done.stdout == ""


def test_a_delayed_message_comes_later(folder: Folder, bus_url: str) -> None:
    done = folder.penstock("publish", "orders", "{}", "--delay", "3600", "--bus", bus_url)

    assert done.returncode == Exit.OK
    assert waiting(bus_url, "orders") == []


def test_a_file_is_published_line_by_line_and_confirmed(folder: Folder, bus_url: str) -> None:
    # With a byte order mark, empty lines, and no end of the last line
    lines = [f'{{"id": {n}}}' for n in range(1300)]
    folder.write("orders.jsonl", "\ufeff" + "\n".join([*lines[:700], "", *lines[700:]]))

    done = folder.penstock("publish", "orders", "--file", "orders.jsonl", "--id", "run", "--bus", bus_url)

    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert done.stdout == "confirmed: 1,300 messages to queue 'orders', ids run-LINE\n"
    found = waiting(bus_url, "orders")
    assert [delivery.body.decode() for delivery in found] == lines
    assert [delivery.message_id for delivery in found[698:702]] == [
        "run-699",
        "run-700",
        "run-702",
        "run-703",
    ]


def test_a_line_that_is_not_json_stops_the_file_and_says_how_to_go_on(folder: Folder, bus_url: str) -> None:
    # Given
    good = [f'{{"id": {n}}}' for n in range(10)]
    path = folder.write("orders.jsonl", "\n".join([*good[:6], '{"id": NaN}', *good[6:]]))
    command = ["publish", "orders", "--file", str(path), "--id", "run", "--bus", bus_url]

    # When
    stopped = folder.penstock(*command)

    # Then what stands before it is there, and nothing else
    assert stopped.returncode == Exit.CONFIGURATION
    assert f"line 7 of {path}: not valid JSON" in stopped.stderr
    assert "6 messages before line 7 are confirmed" in stopped.stderr
    assert "--from-line 7 --id run" in stopped.stderr
    assert len(waiting(bus_url, "orders")) == 6

    # And the same command goes on from there
    path.write_text(path.read_text(encoding="utf-8").replace("NaN", "77"), encoding="utf-8")
    done = folder.penstock(*command, "--from-line", "7")
    assert done.returncode == Exit.OK
    found = waiting(bus_url, "orders")
    assert [delivery.message_id for delivery in found] == [f"run-{n}" for n in range(1, 12)]


def test_what_comes_through_a_pipe_is_published_while_it_is_still_open(folder: Folder, bus_url: str) -> None:
    with subprocess.Popen(
        [str(SCRIPT), "publish", "orders", "--file", "-", "--id", "pipe", "--bus", bus_url],
        cwd=folder.path,
        env=folder.environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as publisher:
        assert publisher.stdin is not None
        publisher.stdin.write('{"id": 1}\n{"id": 2}\n{"id"')
        publisher.stdin.flush()
        until(lambda: depths(bus_url, "orders") == [2], "two messages, and the pipe still open")

        # Ctrl-C says what is safe
        publisher.send_signal(signal.SIGINT)
        assert publisher.stderr is not None
        said = publisher.stderr.read()
        assert publisher.wait(DEADLINE_S) == Exit.INTERRUPTED
    assert "2 messages before line 3 are confirmed" in said
    assert "--from-line 3 --id pipe" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["orders", '{"id": 1'], Exit.CONFIGURATION, "not valid JSON"),
        (["orders", '{"a": 1, "a": 2}'], Exit.CONFIGURATION, "key 'a' stands twice"),
        (["orders", "[1e999]"], Exit.CONFIGURATION, "1e999 is too large"),
        (["orders", '"\\ud800"'], Exit.CONFIGURATION, "hex escape"),
        (["orders", "[" * 300 + "]" * 300], Exit.CONFIGURATION, "recursion limit"),
        (["orders", "hello"], Exit.CONFIGURATION, "--raw publishes any text as it is"),
        (["orders", "[" * 100_000], Exit.CONFIGURATION, "nested too deeply"),
        (["orders", "{}", "more"], Exit.USAGE, "more than a queue and a payload ('more')"),
        (["orders"], Exit.USAGE, "the payload is missing"),
        ([], Exit.USAGE, "name the queue"),
        (["orders", "{}", "--routing-key", "a"], Exit.USAGE, "goes with --exchange"),
        (["orders", "{}", "--header", "novalue"], Exit.USAGE, "write NAME=VALUE"),
        (["orders", "{}", "--header", "x-penstock-attempts=1"], Exit.CONFIGURATION, "choose another name"),
        (["orders", "{}", "--delay", "99999999"], Exit.CONFIGURATION, "delay"),
        (["orders", "--file", "missing.jsonl"], Exit.CONFIGURATION, "missing.jsonl cannot be read"),
        (["--exchange", "nobodys", "{}"], Exit.NOT_PUBLISHED, "no exchange 'nobodys'"),
    ],
)
def test_what_cannot_be_published_is_refused_in_words(
    folder: Folder, words: list[str], code: Exit, said: str
) -> None:
    declare(f"sqlite:///{folder.path / 'bus.db'}", "orders")

    done = folder.penstock("publish", *words)

    assert done.returncode == code
    assert said in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert waiting(f"sqlite:///{folder.path / 'bus.db'}", "orders") == []


def test_text_and_standard_input_are_taken_as_they_are(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'bus.db'}"
    declare(url, "orders")

    raw = folder.penstock("publish", "orders", "--raw", "hello, world")
    read = folder.penstock("publish", "orders", "-", stdin='{"id": 2}\n')

    assert (raw.returncode, read.returncode) == (Exit.OK, Exit.OK)
    found = [(delivery.body, delivery.content_type) for delivery in waiting(url, "orders")]
    assert found == [(b"hello, world", "text/plain"), (b'{"id": 2}\n', "application/json")]


def test_a_line_longer_than_a_message_may_be_is_refused_before_it_is_read_whole(folder: Folder) -> None:
    declare(f"sqlite:///{folder.path / 'bus.db'}", "orders")
    folder.write("long.jsonl", '{"id": 1}\n"' + "x" * 300_000 + '"\n')

    done = folder.penstock("publish", "orders", "--file", "long.jsonl", PENSTOCK_LIMITS__BODY_BYTES="100000")

    assert done.returncode == Exit.CONFIGURATION
    assert "line 2 of long.jsonl: it is longer than limits.body_bytes, 100000 bytes" in done.stderr
    assert "1 message before line 2 is confirmed" in done.stderr


def test_a_terminal_shows_a_progress_bar_and_a_pipe_none(folder: Folder) -> None:
    declare(f"sqlite:///{folder.path / 'bus.db'}", "orders")
    folder.write("orders.jsonl", '{"id": 1}\n' * 2000)

    on_terminal = folder.on_a_terminal("publish", "orders", "--file", "orders.jsonl")
    in_pipe = folder.penstock("publish", "orders", "--file", "orders.jsonl")

    assert "━" in on_terminal
    assert "confirmed: 2,000 messages" in on_terminal
    assert in_pipe.stderr == ""


def test_the_documentation_of_the_exit_codes_is_in_the_help(tmp_path: Path) -> None:
    done = Folder(tmp_path).penstock("--help")
    said = " ".join(done.stdout.split())
    for code in Exit:
        assert f"{code.value} " in said.partition("Exit codes:")[2]
