"""Flags that several commands share, and the settings they lead to."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.words import secrets

if TYPE_CHECKING:
    from penstock.config import Settings

BusFlag = Annotated[
    str | None,
    typer.Option(
        "--bus",
        metavar="URL",
        help="amqp://user:password@host/vhost, or sqlite:///file.db for the embedded bus. "
        "Other users can read a command line: a password is better kept in PENSTOCK_BUS__URL or penstock.toml.",
        show_default=False,
    ),
]
DatabaseFlag = Annotated[
    str | None,
    typer.Option(
        "--database", metavar="URL", help="SQLAlchemy URL, such as sqlite:///app.db.", show_default=False
    ),
]
ProcessesFlag = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        min=0,
        help="Worker processes; 0 serves async handlers only.",
        show_default="one a core",
    ),
]


def settings_from(
    *,
    bus: str | None = None,
    database: str | None = None,
    confirm_timeout_s: float | None = None,
    directory: Path | None = None,
    **sections: dict[str, Any],
) -> Settings:
    """The settings with these flags on top; their passwords are kept out of what is said from here on.

    `directory` is where the settings file lies, when it is not the working directory.
    Raises `ConfigurationError`.
    """
    from penstock.config import load_settings

    for url in (bus, database):
        if url:
            secrets.add_url(url)
    own: dict[str, dict[str, Any]] = {
        "bus": {"url": bus, "confirm_timeout_s": confirm_timeout_s},
        "database": {"url": database},
    }
    settings = load_settings(own | sections, directory=directory)
    secrets.add(settings)
    return settings


def make_importable() -> None:
    """Put the working directory first on the import path, as `python -m` does; worker processes inherit it."""
    here = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if here not in sys.path:
        sys.path.insert(0, here)


def hide_main_module() -> None:
    """Keep this program's main script out of the worker processes, which would import it again.

    multiprocessing finds it by these two names; the workers would load the whole command line for nothing.
    """
    main = sys.modules["__main__"]
    main.__spec__ = None
    if hasattr(main, "__file__"):
        del main.__file__
