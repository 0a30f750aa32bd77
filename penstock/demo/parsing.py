"""From the text of a module to what it defines and imports; takes processor time and nothing else."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Parsed:
    """What one file says. `fault` is set, and the rest is empty, when no parser takes it."""

    lines: int
    classes: list[tuple[str, int]] = field(default_factory=list)
    """Name and line."""
    functions: list[tuple[str, int, int]] = field(default_factory=list)
    """Name, line and number of arguments."""
    imports: set[str] = field(default_factory=set)
    """Full names of modules."""
    fault: str | None = None


def parse(source: bytes, module: str, *, is_package: bool) -> Parsed:
    """Parse the source of a module with this name."""
    parsed = Parsed(source.count(b"\n") + 1)
    try:
        with warnings.catch_warnings():
            # Old files have escapes that newer Pythons warn of.
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        parsed.fault = f"{type(error).__name__}: {error}"[:255]
        return parsed
    for node in _statements(tree):
        if isinstance(node, ast.ClassDef):
            parsed.classes.append((node.name, node.lineno))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            parsed.functions.append((node.name, node.lineno, count))
        elif isinstance(node, ast.Import):
            parsed.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parsed.imports.add(_imported_from(node, module, is_package=is_package))
    return parsed


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Every statement, however deep; expressions define nothing, and are most of a tree."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        for name in ("body", "orelse", "finalbody"):
            waiting += getattr(node, name, ())
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            waiting += part.body


def _imported_from(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    # One dot is the package itself, each further one a step up.
    steps = node.level - is_package
    parent = module.split(".")[: -steps or None]
    return ".".join([*parent, *(node.module or "").split(".")]).strip(".")
