"""SQLAlchemy's compliance suite in a pytest of its own, because its plugin takes a whole pytest over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

ROOT: Final = Path(__file__).parents[2]
#: The environment's name for the URL that the loop of a run leads to; none for a plain driver.
SERVED: Final = "SUITE_DATABASE"
_SUITE: Final = Path(__file__).parent / "suite"


@dataclass(frozen=True, slots=True)
class Ran:
    """How each test ended, by its name without the driver's."""

    passed: frozenset[str]
    skipped: dict[str, str]
    """With the reason."""
    failed: dict[str, str]
    """With the end of what was said."""

    def unexplained(
        self, plain: Ran, reasons: Collection[str], uncollected: Mapping[str, str]
    ) -> dict[str, str]:
        """What passed with the plain driver and not here, with what was said of it, unless that is one of the reasons.

        `uncollected`: why a class of tests was not even collected here.
        """
        said = {
            name: self.skipped.get(name) or uncollected.get(name.partition("::")[0], "")
            for name in plain.passed - self.passed
        }
        return {name: why for name, why in said.items() if not any(reason in why for reason in reasons)}


class Suite:
    """One run, begun when this is made; `url` is a database's, `served` what the loop leads to, `only` as pytest's -k."""

    def __init__(self, url: str, folder: Path, *, served: str = "", only: str = "") -> None:
        self._report = folder / "report.xml"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", SERVED: served}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-q", "--tb=short", "-c", str(_SUITE / "pytest.ini")),
                *(f"--rootdir={_SUITE}", "--dburi", url, f"--junitxml={self._report}", "-k", only),
                str(_SUITE),
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
            # The class, without the driver's name and the server's version.
            owner = re.sub(r"_[a-z]+\+\w+$", "", case.attrib["classname"].rpartition(".")[2])
            name = f"{owner}::{case.attrib['name']}"
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
