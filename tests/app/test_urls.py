"""URLs in the settings are looked at before anything is opened, and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config import load_settings
from penstock.errors import ConfigurationError


@pytest.mark.parametrize(
    ("section", "url"),
    [
        ("bus", "amqp://guest:S3CR3T-canary@host:notaport/"),
        ("bus", "amqp://guest:S3CR3T-canary@host:99999/"),
        ("database", "mysql+pymysql://u:S3CR3T-canary@h:port/x"),
    ],
)
def test_a_port_that_is_none_is_a_settings_error_without_the_password(
    section: str, url: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{section}\.url: .*the port is no number") as caught:
        load_settings({section: {"url": url}}, directory=tmp_path)

    assert "S3CR3T" not in str(caught.value)
