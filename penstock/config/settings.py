"""The whole of the settings, and where they come from.

Later ones win: defaults, `[tool.penstock]` in pyproject.toml or `penstock.toml`, environment variables
`PENSTOCK_SECTION__NAME`, flags. Nothing else in Penstock reads the environment or a settings file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from penstock.config.bus import BusSection
from penstock.config.database import DatabaseSection
from penstock.config.http import HttpSection
from penstock.config.limits import LimitsSection
from penstock.config.service import ServiceSection
from penstock.config.workers import WorkersSection
from penstock.errors import ConfigurationError

SETTINGS_FILE = "penstock.toml"
PROJECT_FILE = "pyproject.toml"


class _FileSource(PydanticBaseSettingsSource):
    """Gives pydantic-settings the table that was read from a file, below the environment."""

    def __init__(self, settings_cls: type[BaseSettings], table: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._table = table

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._table.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._table)


class Settings(BaseSettings):
    """All sections, frozen."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="PENSTOCK_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    bus: BusSection = Field(default_factory=BusSection)
    database: DatabaseSection = Field(default_factory=DatabaseSection)
    workers: WorkersSection = Field(default_factory=WorkersSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    service: ServiceSection = Field(default_factory=ServiceSection)
    http: HttpSection = Field(default_factory=HttpSection)


def load_settings(
    flags: Mapping[str, Mapping[str, Any]] | None = None, *, directory: Path | None = None
) -> Settings:
    """Read the settings once: defaults, file, environment, then `flags` (section -> name -> value).

    The file is `penstock.toml` in `directory` (default: the working directory), else `[tool.penstock]` of
    the `pyproject.toml` there. Raises `ConfigurationError` naming each setting that is unknown or wrong.
    """
    where, table = _read_file(directory or Path.cwd())

    class _FromFile(Settings):
        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (sources["init_settings"], sources["env_settings"], _FileSource(settings_cls, table))

    given = {
        section: {k: v for k, v in values.items() if v is not None}
        for section, values in (flags or {}).items()
    }
    try:
        loaded = _FromFile(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigurationError(_in_words(error, where)) from None
    return Settings.model_construct(**{name: getattr(loaded, name) for name in Settings.model_fields})


def _read_file(directory: Path) -> tuple[str, dict[str, Any]]:
    own = directory / SETTINGS_FILE
    if own.is_file():
        return str(own), _parse(own)
    project = directory / PROJECT_FILE
    if project.is_file():
        return f"{project} [tool.penstock]", _parse(project).get("tool", {}).get("penstock", {})
    return "no settings file", {}


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"{path} cannot be read as TOML: {error}"
        raise ConfigurationError(msg) from error


def _in_words(error: ValidationError, where: str) -> str:
    # The value met is left out: it may be a URL with its password.
    lines = [f"{'.'.join(str(part) for part in item['loc'])}: {_fault(item)}" for item in error.errors()]
    return f"settings cannot be used ({where}, PENSTOCK_… variables, flags):\n  " + "\n  ".join(lines)


def _fault(item: ErrorDetails) -> str:
    if item["type"] == "extra_forbidden":
        return "there is no such setting"
    # pydantic's mark of a sentence that is ours.
    return item["msg"].removeprefix("Value error, ")
