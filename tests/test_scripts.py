"""The commands of a fresh clone: they work from anywhere, and what they install is pinned."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").iterdir())


def requirements(name: str) -> list[str]:
    """The pinned lines of a requirement file, each with its hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pins(name: str) -> set[str]:
    parsed = [Requirement(line.partition(" --hash=")[0].strip()) for line in requirements(name)]
    return {f"{item.name}{item.specifier}" for item in parsed}


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci/run"], ids=lambda script: script.name)
def test_every_script_is_strict_bash_that_may_be_run(script: Path) -> None:
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_a_made_environment_is_left_alone_from_any_folder(tmp_path: Path) -> None:
    subprocess.run([str(ROOT / "scripts/venv")], check=True)
    stamp = ROOT / ".venv" / ".made-from"
    before = stamp.stat().st_mtime_ns
    done = subprocess.run(
        [str(ROOT / "scripts/venv")], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert stamp.stat().st_mtime_ns == before


def test_the_environment_of_another_tree_is_not_emptied_through_a_link(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for folder in (theirs, ours / "scripts", ours / "requirements"):
        folder.mkdir(parents=True)
    kept = theirs / "pyvenv.cfg"
    kept.write_text("home = elsewhere")
    for name in ("scripts/venv", "requirements/dev.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, ours / name)
    (ours / ".venv").symlink_to(theirs)
    done = subprocess.run([str(ours / "scripts/venv")], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(theirs) in done.stderr
    assert kept.exists()


def test_a_python_that_is_too_old_or_absent_is_told_in_one_line() -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/venv")],
        env={**os.environ, "PENSTOCK_PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Python 3.11 or newer" in done.stderr
    assert "no-such-python" in done.stderr


@pytest.mark.parametrize("name", ["base.txt", "dev.txt"])
def test_every_requirement_is_pinned_with_hashes_and_no_address(name: str) -> None:
    lines = requirements(name)
    assert len(lines) > 10
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", line), line
        assert not re.search(r"https?://|file:|--(extra-)?index|--find-links|@", line), line


def test_the_driver_that_has_to_be_compiled_is_pinned_by_itself() -> None:
    (line,) = requirements("mysqlclient.txt")
    assert re.match(r"mysqlclient==[\w.]+ .*--hash=sha256:[0-9a-f]{64}", line)
    assert "mysqlclient" not in " ".join(pins("dev.txt"))


def test_a_deployment_gets_the_versions_that_were_tested() -> None:
    assert pins("base.txt") < pins("dev.txt")


def test_every_dependency_says_why_it_is_here() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(item for extra in project["project"]["optional-dependencies"].values() for item in extra),
        *project["dependency-groups"]["dev"],
    ]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    told = set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE))
    assert told == {Requirement(item).name for item in wanted}
