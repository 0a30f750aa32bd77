"""SQLAlchemy's compliance suite in a pytest of its own, because its plugin takes a whole pytest over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).parents[2]
_SUITE: Final = Path(__file__).parent / "suite"


@dataclass(frozen=True, slots=True)
class Ran:
    """How each test ended, by its name without the driver's."""

    passed: frozenset[str]
    skipped: dict[str, str]
    """With the reason."""
    failed: dict[str, str]
    """With the end of what was said."""


class Suite:
    """One run, begun when this is made; `url` is a database's."""

    def __init__(self, url: str, folder: Path) -> None:
        self._report = folder / "report.xml"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-c", str(_SUITE / "pytest.ini")),
                *(f"--rootdir={_SUITE}", "--dburi", url, f"--junitxml={self._report}", str(_SUITE)),
            ],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def result(self) -> Ran:
        """Wait for its end."""
        said, _ = self._process.communicate()
        assert self._report.exists(), said
        passed: set[str] = set()
        skipped: dict[str, str] = {}
        failed: dict[str, str] = {}
        for case in ET.parse(self._report).iter("testcase"):
            # Some names hold memory addresses, or the driver's name.
            owner = re.sub(r"_\w+\+\w+$", "", case.attrib["classname"].rpartition(".")[2])
            name = f"{owner.partition('_sqlite+')[0]}::{case.attrib['name']}"
            if (told := case.find("skipped")) is not None:
                skipped[name] = told.attrib.get("message", "")
            elif (told := case.find("failure")) is not None or (told := case.find("error")) is not None:
                failed[name] = (told.text or "")[-2000:]
            else:
                passed.add(name)
        assert passed, said
        return Ran(frozenset(passed), skipped, failed)

    def close(self) -> None:
        """End it, when nobody waited for it."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
