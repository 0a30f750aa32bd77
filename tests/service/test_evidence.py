"""What a message that killed its worker leaves for the person who looks at its dead letter; and what its next run is told."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.service.running import running

THREE: dict[str, Any] = {"crash_attempts": 3}
ONE: dict[str, Any] = {"crash_attempts": 1}


@pytest.mark.parametrize(
    ("how", "end", "stack"),
    [
        ("segfault", "signal 11, SIGSEGV: a segmentation fault", "Fatal Python error: Segmentation fault"),
        ("abort", "signal 6, SIGABRT: C code gave up with abort()", "Fatal Python error: Aborted"),
        ("kill", "signal 9, SIGKILL: killed from outside", None),
        ("exit", "exit code 7", None),
    ],
)
async def test_three_deaths_make_a_dead_letter_with_the_evidence(
    bus_url: str, tmp_path: Path, how: str, end: str, stack: str | None
) -> None:
    async with running(bus_url, tmp_path, only=("t.dies",), workers=THREE) as service:
        await service.publish("t.dies", {"how": how})

        statistics = await service.settled(1)
        (letter,) = await service.dead("t.dies")

    assert (statistics.worker_deaths, statistics.dead) == (3, 1)
    assert letter["x-penstock-crashes"] == 3
    assert letter["x-penstock-crash"] == end
    assert letter["x-penstock-crash-phase"] == "in transaction"
    assert end in str(letter["x-penstock-reason"])
    assert 10 < float(str(letter["x-penstock-crash-peak-memory"]).removesuffix(" MiB")) < 1000
    if stack is None:
        assert "x-penstock-crash-stack" not in letter
    else:
        written = str(letter["x-penstock-crash-stack"])
        assert written.startswith(stack)
        assert "application.py" in written
        assert "in dies" in written


@pytest.mark.parametrize(("how", "line"), [("c", "pbkdf2_hmac"), ("swallows", "sleep")])
async def test_a_worker_that_is_killed_at_its_deadline_says_first_where_it_was(
    bus_url: str, tmp_path: Path, how: str, line: str
) -> None:
    # C code holds the interpreter's lock, or Python code swallows the exception: the stack is written all the same.
    async with running(bus_url, tmp_path, only=("t.deadline",), workers=ONE) as service:
        await service.publish("t.deadline", {"how": how})

        await service.settled(1)
        (letter,) = await service.dead("t.deadline")

    assert letter["x-penstock-crash"] == "killed 0.3 s after its deadline of 0.3 s"
    stack = str(letter["x-penstock-crash-stack"])
    assert stack.startswith("Current thread")
    source = (Path(__file__).parent / "application.py").read_text(encoding="utf-8").splitlines()
    number = int(stack.split("application.py", 1)[1].split("line ", 1)[1].split(" ", 1)[0])
    assert line in source[number - 1]


async def test_a_frozen_worker_is_killed_at_its_deadline_without_a_stack(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.deadline",), workers=ONE) as service:
        await service.publish("t.deadline", {"how": "freezes"})

        await service.settled(1)
        (letter,) = await service.dead("t.deadline")

    assert letter["x-penstock-crash"] == "killed 0.3 s after its deadline of 0.3 s"
    assert "x-penstock-crash-stack" not in letter


async def test_the_memory_of_a_handler_that_took_its_time_is_in_the_evidence(
    bus_url: str, tmp_path: Path
) -> None:
    async with running(bus_url, tmp_path, only=("t.dies",), workers=ONE) as service:
        await service.publish("t.dies", {"how": "grows", "mib": 200})

        await service.settled(1)
        (letter,) = await service.dead("t.dies")

    assert float(str(letter["x-penstock-crash-peak-memory"]).removesuffix(" MiB")) > 200


@pytest.mark.parametrize(("when", "is_there"), [("before", False), ("after", True), ("lost", True)])
async def test_a_run_after_a_commit_that_nobody_saw_end_is_told_so(
    bus_url: str, tmp_path: Path, when: str, is_there: bool
) -> None:
    async with running(bus_url, tmp_path, only=("t.commits",)) as service:
        await service.publish("t.commits", {"when": when})

        statistics = await service.settled(1)

    first = ["commits after None"] if is_there else []
    assert (statistics.worker_deaths, statistics.retried, statistics.acked) == (when != "lost", 1, 1)
    assert [row.handler for row in service.query("ORDER BY n")] == [*first, "commits after commit unknown"]


async def test_a_death_elsewhere_leaves_no_doubt_about_a_commit(bus_url: str, tmp_path: Path) -> None:
    async with running(bus_url, tmp_path, only=("t.dies", "t.commits")) as service:
        await service.publish("t.dies", {"how": "kill", "times": 1})
        await service.settled(1)
        (again,) = service.effects("dies")
        assert again == ("m0", 2)
        lines = [
            line for line in service.lines if line["event"] == "a worker died: its slot comes back by itself"
        ]

    assert [(line["phase"], line["how"]) for line in lines] == [
        ("in transaction", f"signal {signal.SIGKILL:d}, SIGKILL: killed from outside")
    ]
