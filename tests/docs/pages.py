"""The documents as data: pages, their fenced blocks, their links."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
#: The first line of a block that is a whole file of a reader's project.
_FILE_NAME: Final = re.compile(r"# (?P<name>[\w/]+\.py)\b")
_EXPLICIT: Final = re.compile(r"^[a-z]+:", re.ASCII)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    """Where its text begins, counted from 1."""
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        """The file that the block is, by its first line; None for a piece of one."""
        found = _FILE_NAME.match(self.text)
        return found["name"] if found else None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All fenced blocks in one of the languages, page after page."""
    return [
        Block(page, token.map[0] + 2, token.info.split()[0], token.content)
        for page in PAGES
        for token in _tokens(page)
        if token.type == "fence"
        and token.map
        and token.info.split()[:1]
        and token.info.split()[0] in languages
    ]


def outputs() -> dict[Block, str]:
    """What the page says that a program prints: the `text` block that stands directly behind it."""
    found: dict[Block, str] = {}
    for page in PAGES:
        for first, second in pairwise(_tokens(page)):
            if (
                first.type == second.type == "fence"
                and (first.info, second.info) == ("python", "text")
                and first.map
            ):
                found[Block(page, first.map[0] + 2, "python", first.content)] = second.content
    return found


def unnamed_blocks() -> list[Block]:
    """Fenced blocks that do not say their language."""
    return [
        Block(page, token.map[0] + 2, "", token.content)
        for page in PAGES
        for token in _tokens(page)
        if token.type == "fence" and token.map and not token.info.strip()
    ]


def links(page: Path) -> list[str]:
    """Targets of the page's links and pictures that lead to a file of this repository."""
    inline = [child for token in _tokens(page) for child in token.children or ()]
    targets = [str(child.attrs.get("href") or child.attrs.get("src") or "") for child in inline]
    return [target for target in targets if target and not _EXPLICIT.match(target)]


def anchors(page: Path) -> set[str]:
    """What `page#…` may lead to, by the rule of GitHub's headings."""
    tokens = _tokens(page)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {_anchor(title) for title in titles}


def _anchor(title: str) -> str:
    words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
    return re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")


def _tokens(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
