"""What `import penstock` offers: this list, loaded at the first use."""

import importlib
import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import penstock
from penstock import errors

PUBLIC = {
    "App", "Router", "Binding", "Backoff", "Context", "AsyncContext", "Retry", "Reject", "session",
    "Client", "AsyncClient", "DeadLetters", "DeadLetter",
    "SQLProxy", "get_connection", "close_connection", "close_connections",
    "PenstockError", "ConfigurationError", "HandlerError", "PayloadError", "DeadlineExceeded",
    "BusError", "BusUnavailable", "TopologyMismatch", "PublishError", "Unroutable", "PublishTimeout", "NotCarried", "ClientError",
    "ChannelError", "ChannelClosed", "DatabaseError", "DatabaseBusy", "DatabaseLost", "DatabaseUnavailable",
    "TransactionUndone", "ConnectionMisused",
    "ProxyError",
    "__version__",
}  # fmt: skip

#: Raised between parts of Penstock; nobody outside has to catch it by name.
INTERNAL_ERRORS = {"FrameError"}


def modules_after(statement: str) -> set[str]:
    program = f"import json, sys\n{statement}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_the_public_names_are_these() -> None:
    assert set(penstock.__all__) == PUBLIC
    assert len(penstock.__all__) == len(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_there_and_has_words(name: str) -> None:
    value = getattr(penstock, name)
    if name != "__version__":
        # An object that stands for another one has no name of its own.
        assert getattr(value, "__name__", name) == name
        assert value.__doc__


def test_every_error_is_public_or_meant_not_to_be() -> None:
    declared = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {
        name for name in declared if issubclass(getattr(errors, name), penstock.PenstockError)
    } == declared
    assert declared - PUBLIC == INTERNAL_ERRORS


def test_the_version_is_the_package_s() -> None:
    assert penstock.__version__ == version("penstock")


def test_a_name_that_is_not_there_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'penstock' has no attribute 'Sluice'"):
        penstock.Sluice  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="Sluice"):
        from penstock import Sluice  # type: ignore[attr-defined]  # noqa: F401


def test_a_star_import_and_dir_show_all_of_it() -> None:
    found: dict[str, object] = {}
    exec("from penstock import *", found)
    assert set(found) >= PUBLIC
    assert set(dir(penstock)) >= PUBLIC


def test_a_submodule_is_still_a_module() -> None:
    assert importlib.import_module("penstock.client").Client is penstock.Client


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = modules_after("import penstock")

    assert {name for name in loaded if name.startswith("penstock")} == {"penstock"}
    assert not loaded & {"aio_pika", "sqlalchemy", "pydantic", "msgspec", "structlog", "asyncio"}


@pytest.mark.parametrize(
    "statement",
    [
        "from penstock import App, Router, Binding, Backoff, Context, AsyncContext, Retry, Reject",
        "from penstock import PenstockError, Unroutable",
        "from penstock import Client, AsyncClient",
        "from penstock import DeadLetters, DeadLetter",
        "from penstock import SQLProxy",
        "from penstock import get_connection, close_connection, close_connections",
    ],
)
def test_what_a_program_declares_or_publishes_with_loads_no_driver(statement: str) -> None:
    assert not modules_after(statement) & {"aio_pika", "aiormq", "sqlalchemy", "aiosqlite", "typer", "rich"}
