from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, unnamed_blocks

#: What is unfinished, or true on one machine only.
FOREIGN = ("/tmp/", "TODO", "FIXME", "coming soon")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / unquote(path)).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    found = {(index.parent / link).resolve() for link in links(index)}
    assert found >= set(PAGES) - {index}


def test_every_fenced_block_says_its_language() -> None:
    assert [str(block) for block in unnamed_blocks()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_speaks_to_its_reader(page: Path) -> None:
    text = page.read_text(encoding="utf-8").lower()
    assert [word for word in FOREIGN if word.lower() in text] == []
