"""Values of settings that are refused by name, before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import load_settings
from penstock.errors import ConfigurationError


@pytest.mark.parametrize(
    ("section", "name"),
    [("database", "wait_s"), ("database", "max_connections"), ("workers", "processes"), ("database", "url")],
)
def test_true_is_no_number(section: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(f"[{section}]\n{name} = true\n")

    with pytest.raises(ConfigurationError, match=rf"{section}\.{name}: .*true is no value for it"):
        load_settings(directory=tmp_path)


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False)])
def test_what_is_on_or_off_takes_both(written: str, value: bool, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(f"[database]\ndebug_checkouts = {written}\n")

    assert load_settings(directory=tmp_path).database.debug_checkouts is value


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("session", '"myapp.db.DBSession"', "write the module and the name in it, module:attribute"),
        ("engine", '"myapp"', "write the module and the name in it, module:attribute"),
        ("synchronous", '"full"', "should be 'OFF', 'NORMAL', 'FULL' or 'EXTRA'"),
        ("urll", '"sqlite:///app.db"', "there is no such setting"),
        ("url", '"mysql+pymysql://user@host:port/name"', "the port is no number from 0 to 65535"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write(name: str, written: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text(f"[database]\n{name} = {written}\n")

    with pytest.raises(ConfigurationError) as refused:
        load_settings(directory=tmp_path)

    (line,) = str(refused.value).splitlines()[1:]
    assert line.strip().startswith(f"database.{name}: ")
    assert said in line
    assert "Value error" not in line
    assert "pattern" not in line
