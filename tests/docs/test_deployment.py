"""What one deploys with names files, settings and users that exist, and leaves the drain the time that it takes."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path
from shutil import which
from typing import Final

import pytest
from packaging.requirements import Requirement

from penstock.cli.exits import Exit
from penstock.config import Settings
from tests.docs.pages import PAGES, ROOT

UNIT: Final = ROOT / "deploy" / "penstock.service"
DOCKERFILE: Final = ROOT / "Dockerfile"
COMPOSE: Final = ROOT / "docker-compose.yml"
#: At the least between the end of the drain and a service manager's SIGKILL.
CLOSING_S: Final = 10


def settings_named_in(path: Path) -> set[str]:
    return set(re.findall(r"PENSTOCK_[A-Z]+__[A-Z_]+", path.read_text(encoding="utf-8")))


def known_settings() -> set[str]:
    return {
        f"PENSTOCK_{section}__{name}".upper()
        for section, field in Settings.model_fields.items()
        if field.annotation is not None
        for name in field.annotation.model_fields
    }


@pytest.mark.parametrize("path", [UNIT, DOCKERFILE, COMPOSE, *PAGES], ids=lambda path: path.name)
def test_every_variable_is_a_setting(path: Path) -> None:
    assert settings_named_in(path) <= known_settings()


def test_the_settings_in_the_files_of_the_pages_can_be_loaded() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```toml\n# penstock.toml\n(.*?)```", page, re.DOTALL)
    Settings(**tomllib.loads(table))


# --- systemd


def unit() -> dict[str, str]:
    lines = [
        line
        for line in UNIT.read_text(encoding="utf-8").splitlines()
        if "=" in line and not line.startswith("#")
    ]
    return dict(line.split("=", 1) for line in lines)


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    verifier = which("systemd-analyze")
    if verifier is None:
        pytest.skip("systemd-analyze is not on this machine")
    # Verifying looks for the program, which is not installed here.
    text = UNIT.read_text(encoding="utf-8").replace(unit()["ExecStart"].split()[0], "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [verifier, "verify", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_leaves_the_drain_its_time_and_signals_the_reactor_alone() -> None:
    assert int(unit()["TimeoutStopSec"]) >= Settings().service.drain_seconds + CLOSING_S
    assert unit()["KillMode"] == "mixed"


def test_the_unit_starts_again_after_exit_codes_that_may_pass() -> None:
    kept_down = {int(code) for code in unit()["RestartPreventExitStatus"].split()}
    assert kept_down == {Exit.USAGE, Exit.CONFIGURATION, Exit.TOPOLOGY, Exit.WORKERS}


def test_the_unit_waits_for_the_service_to_be_ready_and_for_its_loop_longer_than_the_log_does() -> None:
    assert (unit()["Type"], unit()["NotifyAccess"]) == ("notify", "main")
    assert int(unit()["WatchdogSec"]) > 2 * Settings().service.blocked_seconds


# --- Docker


def test_the_image_copies_files_that_exist_and_that_docker_is_given() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)]
    sources = [source.rstrip("/") for words in copied for source in words]
    given = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sources) == sorted(given)
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_the_image_runs_as_nobody_of_importance_and_asks_the_health_file() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert re.findall(r"^USER (\w+)$", text, re.MULTILINE) == ["penstock"]
    assert 'CMD ["penstock", "check", "--live"]' in text


def test_what_builds_the_wheel_is_all_pinned_in_the_image() -> None:
    (names,) = re.findall(r"keep = /\^\(([\w|-]+)\)==/", DOCKERFILE.read_text(encoding="utf-8"))
    wanted, left = set(), ["hatchling"]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            needs = [Requirement(text) for text in requires(name) or ()]
            left += [
                need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    assert set(names.split("|")) == wanted


def test_the_image_is_one_of_a_python_that_is_supported() -> None:
    (version,) = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_compose_mounts_folders_that_exist_and_stops_after_the_drain() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    mounted = re.findall(r"- \./([\w/.-]+):", text)
    assert mounted
    assert [folder for folder in mounted if not (ROOT / folder).is_dir()] == []
    service = text.partition("\n  service:")[2]
    (grace_s,) = re.findall(r"stop_grace_period: (\d+)s", service)
    (drain_s,) = re.findall(r'PENSTOCK_SERVICE__DRAIN_SECONDS: "(\d+)"', service)
    assert int(grace_s) >= int(drain_s) + CLOSING_S
