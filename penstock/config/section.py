"""What every section of the settings has in common: frozen, and unknown names are refused."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator


class Section(BaseModel):
    """One frozen part of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # pydantic would take it for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            msg = (
                f"{str(value).lower()} is no value for it; true and false are for settings that are on or off"
            )
            raise ValueError(msg)
        return value


def check_port(url: SecretStr) -> SecretStr:
    """The URL as it is. Raises `ValueError`, without the URL in it, when its port is none."""
    try:
        _ = urlsplit(url.get_secret_value()).port
    except ValueError:
        msg = (
            "the port is no number from 0 to 65535; it stands behind the host, as in user:password@host:5672"
        )
        raise ValueError(msg) from None
    return url
