"""`penstock check --live`: is the service that runs on this machine live? Read from its health file, without it."""

from __future__ import annotations

from pathlib import Path

import typer

from penstock.cli.exits import Exit
from penstock.cli.words import fail
from penstock.config import Settings
from penstock.health.file import Health, default_folder, default_health_file, read_health, what_is_wrong


def check_live(address: str | None, settings: Settings, *, wants_ready: bool) -> Exit:
    """Say whether the service of `address` is live, or every service of this user when None; `NO` when not.

    A file named by `service.health_file` is the one that is read.
    """
    paths = _paths(address, settings)
    if not paths:
        fail(f"not live: no service of this user has a health file in {default_folder()}")
        return Exit.NO
    codes = [_check(path, wants_ready=wants_ready) for path in paths]
    return max(codes)


def _paths(address: str | None, settings: Settings) -> list[Path]:
    if settings.service.health_file is not None:
        return [Path(settings.service.health_file)]
    if address is not None:
        return [default_health_file(address)]
    return sorted(default_folder().glob("*.json"))


def _check(path: Path, *, wants_ready: bool) -> Exit:
    health = read_health(path)
    if health is None:
        why = (
            "is not a health file"
            if path.exists()
            else "does not exist; is the service running, as this user?"
        )
        fail(f"not live: {path} {why}")
        return Exit.NO
    wrong = what_is_wrong(health)
    if wrong is not None:
        fail(f"{health.application} is not live: {wrong}")
        return Exit.NO
    if wants_ready and not health.is_ready:
        fail(f"{health.application} is live and not ready: {_state(health)}")
        return Exit.NO
    typer.echo(f"{health.application} is live: {_state(health)}")
    return Exit.OK


def _state(health: Health) -> str:
    queues = "1 queue" if len(health.queues) == 1 else f"{len(health.queues)} queues"
    doing = f"consuming {queues}" if health.is_ready else "; ".join(health.why_not_ready)
    return f"process {health.pid}, {doing}"
