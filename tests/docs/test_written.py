"""What a program writes is as it would write it now; `python -m tests.docs.written` brings it up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from penstock import errors
from penstock.app import header_names
from tests.docs.pages import PAGES, ROOT, anchors
from tests.docs.written import PARTS, SETTINGS_PAGE, Part, settings_page

#: A name in code that can only be an exception's.
EXCEPTION = re.compile(
    r"`(?:penstock\.)?([A-Z]\w*(?:Error|Busy|Unavailable|Closed|Exceeded|Mismatch|Misused|Timeout|Unroutable))`"
)
#: Other people's.
FOREIGN = {"IntegrityError", "OperationalError"}


def test_the_settings_page_is_what_the_sections_say() -> None:
    assert SETTINGS_PAGE.read_text(encoding="utf-8") == settings_page()


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.mark)
def test_a_written_part_is_what_the_code_says(part: Part) -> None:
    page = part.page.read_text(encoding="utf-8")
    assert page == part.put_into(page)


def test_a_part_whose_marks_are_gone_is_missed() -> None:
    with pytest.raises(ValueError, match="marks"):
        PARTS[0].put_into("a page without them")


def test_the_headers_of_a_dead_letter_are_all_listed() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(x-penstock-[\w-]+)`", page, re.MULTILINE))
    written = {
        value
        for value in vars(header_names).values()
        if isinstance(value, str) and value.startswith(header_names.PREFIX) and value != header_names.PREFIX
    }
    assert told == written


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_exception_that_a_page_names_exists(page: Path) -> None:
    named = set(EXCEPTION.findall(page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not hasattr(errors, name) and name not in FOREIGN] == []


def test_every_line_of_the_log_worth_an_alarm_is_one_that_is_written() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    table = page.partition("Worth an alarm:")[2].partition("\n## ")[0]
    events = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "penstock").rglob("*.py"))
    assert events
    assert [event for event in events if f'"{event}' not in sources] == []


def test_the_glossary_is_in_order_and_knows_every_word_of_the_house() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| \*\*([^*]+)\*\* \|", page, re.MULTILINE)
    assert words == sorted(words, key=str.lower)
    wanted = (
        "delivery settle ack nack reject prefetch dead*letter publisher*confirm backoff drain deadline slot "
        "flight*recorder channel AMQP*channel lease inbox outbox embedded*bus group*commit seat judge joiner mark phase "
        "batch take*back outcome decision"
    )
    assert {word.replace("*", " ") for word in wanted.split()} <= set(words)


def test_anchors_are_made_as_the_site_makes_them() -> None:
    assert "what-a-body-may-be" in anchors(ROOT / "docs" / "publish.md")
