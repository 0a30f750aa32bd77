"""The standard library of the running Python, as files."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Installed by others, or not source.
_NOT_ITS_OWN: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})


def source_files() -> list[tuple[Path, str]]:
    """Every `.py` file with its module's name, in order of names; empty when Python keeps its library in an archive."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(_walk(root), key=lambda found: found[1])


def _walk(root: Path) -> Iterator[tuple[Path, str]]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_ITS_OWN]
        for name in files:
            path = Path(folder, name)
            if name.endswith(".py") and path.is_file():
                yield path, _module_name(path.relative_to(root))


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
