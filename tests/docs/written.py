"""What is written by a program, so that it cannot drift: the settings page, the map of the files, the exit codes.

python -m tests.docs.written      writes them again
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from penstock.cli.exits import Exit
from penstock.config import Settings
from tests.docs.pages import ROOT

SETTINGS_PAGE: Final = ROOT / "docs" / "settings.md"
_BOUNDS: Final = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

_ABOUT_SETTINGS: Final = """\
# Settings

Later ones win: the default, the file, the environment, the flag.

- The file is `penstock.toml` in the working directory; without one it is the table `[tool.penstock]` in `pyproject.toml`.
- The environment: `PENSTOCK_` + section + `__` + name, for example `PENSTOCK_BUS__URL`.
- Flags of `penstock run`: `penstock run --help`.

An unknown name or a wrong value ends the start with a message that names it. The settings are read once, at the start.
A unit is part of the name: `_s` and `_seconds` are seconds, `_bytes` bytes, `_mib` MiB.

This page is written from the code, by `python -m tests.docs.written`.
"""


def settings_page() -> str:
    """The settings page, from the sections' fields and the sentences below them."""
    parts = [_ABOUT_SETTINGS]
    for section_name, section_field in Settings.model_fields.items():
        section: Any = section_field.annotation
        fields: dict[str, FieldInfo] = section.model_fields
        parts.append(f"\n## [{section_name}]\n\n{section.__doc__.strip()}\n")
        parts.append("\n| name | value | default | meaning |\n| --- | --- | --- | --- |\n")
        parts += [
            f"| `{name}` | {_kind(field)} | {_default(field)} | {_meaning(field)} |\n"
            for name, field in fields.items()
        ]
    return "".join(parts)


def file_map() -> str:
    """One line for each module of the package: its path and the first sentence of its text."""
    lines: list[str] = []
    folders = sorted({path.parent for path in (ROOT / "penstock").rglob("*.py")})
    for folder in folders:
        texts = {
            path.name: ast.get_docstring(ast.parse(path.read_text("utf-8")))
            for path in sorted(folder.glob("*.py"))
        }
        rows = [f"| `{name}` | {_first_paragraph(text)} |" for name, text in texts.items() if text]
        if rows:
            lines += [
                "",
                f"`{folder.relative_to(ROOT)}/`",
                "",
                "| file | what it is |",
                "| --- | --- |",
                *rows,
            ]
    return "\n".join(lines) + "\n\n"


def exit_codes() -> str:
    """A table of the exit codes, from the enumeration and the sentences below its members."""
    tree = ast.parse((ROOT / "penstock" / "cli" / "exits.py").read_text(encoding="utf-8"))
    (codes,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Exit"]
    told = {}
    for member, sentence in zip(codes.body, codes.body[1:], strict=False):
        if (
            isinstance(member, ast.Assign)
            and isinstance(sentence, ast.Expr)
            and isinstance(sentence.value, ast.Constant)
        ):
            told[ast.unparse(member.targets[0])] = " ".join(str(sentence.value.value).split())
    rows = [f"| {code.value} | {_cell(told[code.name])} |" for code in Exit]
    return "\n".join(["", "| code | meaning |", "| --- | --- |", *rows]) + "\n\n"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a page that is written by a program, between two marks."""

    page: Path
    mark: str
    write: Callable[[], str]

    def put_into(self, text: str) -> str:
        """The page's text with this part as it is now. Raises `ValueError` when its marks are gone."""
        marks = re.compile(rf"(?<=<!-- {self.mark} -->\n).*?(?=<!-- /{self.mark} -->)", re.DOTALL)
        written, places = marks.subn(lambda _: self.write(), text)
        if places != 1:
            raise ValueError(f"{self.page} has lost its marks <!-- {self.mark} --> and <!-- /{self.mark} -->")
        return written


PARTS: Final = (
    Part(ROOT / "docs" / "architecture.md", "files", file_map),
    Part(ROOT / "docs" / "deploy.md", "exit codes", exit_codes),
)


def _first_paragraph(text: str) -> str:
    return _cell(" ".join(text.split("\n\n", maxsplit=1)[0].split()))


def _kind(field: FieldInfo) -> str:
    words = " or ".join(_type_words(field.annotation))
    bounds = [
        f"{said} {getattr(rule, name)}"
        for rule in field.metadata
        for name, said in _BOUNDS.items()
        if hasattr(rule, name)
    ]
    patterns = [
        rule.pattern.strip("^$()").replace("|", ", ")
        for rule in field.metadata
        if getattr(rule, "pattern", None)
    ]
    return _cell(", ".join([*([] if patterns else [words]), *bounds, *patterns]))


def _type_words(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield ", ".join(str(value) for value in get_args(annotation))
    elif args := get_args(annotation):
        for arg in args:
            yield from _type_words(arg)
    else:
        words = {
            int: "whole number",
            float: "number",
            str: "text",
            bool: "true, false",
            SecretStr: "text",
            type(None): "none",
        }
        yield words[annotation]


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "one a core"
    default = field.default
    if default is PydanticUndefined:
        return "none, it must be set"
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None:
        return "not set"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _meaning(field: FieldInfo) -> str:
    if not field.description:
        raise ValueError(f"a setting has no sentence below it: {field!r}")
    return _cell(" ".join(field.description.split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write all of it."""
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
    for part in PARTS:
        part.page.write_text(part.put_into(part.page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
