"""What counts as a password in a URL, and that it is taken out of every text."""

from __future__ import annotations

import pytest

from penstock.cli.secrets import Secrets, masked


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:S3CR3T@host:5672/shop", "amqp://user:***@host:5672/shop"),
        ("amqp://guest:guest@localhost/", "amqp://guest:***@localhost/"),
        ("amqp://a:b@localhost/", "amqp://a:***@localhost/"),
        ("amqp://localhost/", "amqp://localhost/"),
        ("sqlite:///app.db", "sqlite:///app.db"),
        ("mysql+pymysql://user:p%40ss%2Fword@host/name", "mysql+pymysql://user:***@host/name"),
        ("mysql+pymysql://user:pass/word@host/name", "mysql+pymysql://user:***@host/name"),
        ("sqlite:////srv/a:b@c/app.db", "sqlite:////srv/a:b@c/app.db"),
        ("mysql+pymysql://user:w@rd-with@at@host/name", "mysql+pymysql://user:***@host/name"),
        (
            "mysql+pymysql://host/name?password=S3CR3T&charset=utf8",
            "mysql+pymysql://host/name?password=***&charset=utf8",
        ),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_password_is_hidden_as_it_was_written_and_as_it_reads() -> None:
    secrets = Secrets()
    secrets.add_url("amqp://user:S3CR3T%2Fcanary@host/")

    hidden = secrets.hide("S3CR3T%2Fcanary, S3CR3T/canary and user:S3CR3T/canary@host")

    assert hidden == "***, *** and user:***@host"


def test_the_users_name_stays_readable_where_it_is_also_the_password() -> None:
    secrets = Secrets()
    secrets.add_url("amqp://guest:guest@localhost/")

    assert secrets.hide("user 'guest' is refused") == "user 'guest' is refused"


def test_a_line_of_the_log_is_cleaned_in_every_field_and_in_its_traceback() -> None:
    secrets = Secrets()
    secrets.add_url("amqp://user:S3CR3T-canary@host/")
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError("amqp://user:S3CR3T-canary@host/ is away")

    event = secrets.processor(
        None,
        "error",
        {"event": "S3CR3T-canary", "url": ["S3CR3T-canary"], "number": 3, "exc_info": raised.value},
    )

    assert "S3CR3T-canary" not in repr(event)
    assert event["number"] == 3
    assert "RuntimeError: amqp://user:***@host/ is away" in event["exception"]
