"""Every command that a page tells its reader to type is one that exists, with flags that exist."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

import pytest
import typer
import typer.main

from penstock.cli.commands import app
from tests.docs.pages import PAGES, ROOT, blocks

COMMAND: Final[Any] = typer.main.get_command(app)
INLINE: Final = re.compile(r"`(penstock [^`]+)`")


def typed() -> Iterator[tuple[str, list[str]]]:
    """Where it stands, and the words of every line to type in blocks for a shell."""
    for block in blocks("sh", "console"):
        lines = block.text.replace("\\\n", " ").splitlines()
        for number, line in enumerate(lines):
            if block.language == "console" and not line.startswith("$ "):
                continue
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield f"{block.page.name}:{block.line + number}", words


def mentioned() -> Iterator[tuple[str, list[str]]]:
    """The same for what stands in a sentence; it may be the beginning of a command."""
    for page in PAGES:
        for found in INLINE.finditer(page.read_text(encoding="utf-8")):
            yield page.name, shlex.split(found[1])


OURS: Final = [
    pytest.param(words[words.index("penstock") + 1 :], id=f"{place} {' '.join(words)}")
    for place, words in typed()
    if "penstock" in words and words[0] in ("penstock", "docker")
]
MENTIONED: Final = [pytest.param(words[1:], id=f"{place} {' '.join(words)}") for place, words in mentioned()]
SCRIPTS: Final = [(place, words) for place, words in typed() if words[0].startswith("scripts/")]
PIP: Final = [(place, words) for place, words in typed() if words[:2] == ["pip", "install"]]


def parse(words: list[str]) -> Any:
    """The command that these words run, with what they say; raises when they say nothing that it understands."""
    group, context = COMMAND, COMMAND.make_context("penstock", list(words))
    while True:
        rest = [*context._protected_args, *context.args]
        name, command, rest = group.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        if not hasattr(command, "commands"):
            return command
        group = command


@pytest.mark.parametrize("words", OURS)
def test_a_command_in_a_block_is_understood(words: list[str]) -> None:
    assert parse(words).callback is not None


@pytest.mark.parametrize("words", MENTIONED)
def test_a_command_in_a_sentence_exists(words: list[str]) -> None:
    command = COMMAND
    known = {"--help", "-h"}
    for word in words:
        if word.startswith("-"):
            options = {name for parameter in command.params for name in parameter.opts}
            assert word.partition("=")[0] in options | known
        elif hasattr(command, "commands"):
            (command,) = [command.commands[name] for name in word.split("|")[:1]]


@pytest.mark.parametrize(
    "wrong", [["rum", "orders:app"], ["run", "orders:app", "--proceses", "4"], ["dead", "list"]]
)
def test_the_parser_refuses_what_does_not_exist(wrong: list[str]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such|missing|parameter"):
        parse(wrong)


@pytest.mark.parametrize(("place", "words"), SCRIPTS, ids=str)
def test_a_script_exists_and_may_be_run(place: str, words: list[str]) -> None:
    assert os.access(ROOT / words[0], os.X_OK)


@pytest.mark.parametrize(("place", "words"), PIP, ids=str)
def test_an_extra_to_install_exists(place: str, words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"\[([\w,]+)\]", " ".join(words))
    assert [extra for group in named for extra in group.split(",") if extra not in extras] == []


def test_modules_to_run_with_python_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"python -m ([\w.]+)", page.read_text("utf-8"))}
    assert [name for name in named if find_spec(name) is None] == []
