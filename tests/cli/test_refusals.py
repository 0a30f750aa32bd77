"""What cannot work is refused in words, with its exit code, and without a traceback of ours or a password."""

from __future__ import annotations

import pytest
import typer

from penstock import errors
from penstock.cli.exits import Exit, exit_of
from penstock.cli.words import command, secrets
from penstock.errors import PenstockError
from tests.cli.program import Folder

CANARY = "S3CR3T-canary"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "nowhere"], Exit.CONFIGURATION, "there is no module 'nowhere' here"),
        (["run", "shop:nothing"], Exit.CONFIGURATION, "shop has no App named 'nothing'; write shop:app"),
        (["run", "shop", "--only", "ordres"], Exit.CONFIGURATION, "--only 'ordres' matches no queue"),
        (["run", "shop", "--processes", "0"], Exit.CONFIGURATION, "these queues have plain handlers"),
        (
            ["run", "shop", "--bus", "redis://localhost"],
            Exit.CONFIGURATION,
            "bus.url: a bus is amqp://",
        ),
        (
            ["run", "shop", "--bus", "sqlite:///no/such/folder/bus.db"],
            Exit.BUS_UNAVAILABLE,
            "its folder does not exist",
        ),
        (
            ["run", "shop", "--only", "async", "--database", "sqlite:///:memory:"],
            Exit.CONFIGURATION,
            "needs a database in a file",
        ),
        (
            ["run", "shop", "--only", "async", "--database", "sqlite:////tmp"],
            Exit.CONFIGURATION,
            "leads to a folder",
        ),
        (["run", "shop", "--log-level", "loud"], Exit.USAGE, "'loud' is not one of"),
        (["run"], Exit.USAGE, "Missing argument"),
        (["dead", "list", "orders"], Exit.BUS_UNAVAILABLE, "there is no embedded bus at"),
        (["publish", "orders", "{}"], Exit.BUS_UNAVAILABLE, "there is no embedded bus at"),
        (["demo", "--database", "mysql+pymysql://localhost/x"], Exit.CONFIGURATION, "which speaks SQLite"),
    ],
)
def test_the_refusal_says_what_to_do(folder: Folder, words: list[str], code: Exit, said: str) -> None:
    done = folder.penstock(*words)

    assert done.returncode == code
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_settings_file_that_is_wrong_names_each_setting(folder: Folder) -> None:
    folder.write(
        "penstock.toml", f'[bus]\nurl = "{CANARY}"\n[workers]\nproceses = 2\n[service]\ndrain_seconds = -1\n'
    )

    done = folder.penstock("run", "shop")

    assert done.returncode == Exit.CONFIGURATION
    for name in ("penstock.toml", "bus.url", "workers.proceses", "service.drain_seconds"):
        assert name in done.stderr
    assert "Traceback" not in done.stderr
    assert CANARY not in done.stderr


def test_an_environment_variable_that_is_wrong_is_named(folder: Folder) -> None:
    done = folder.penstock("run", "shop", PENSTOCK_WORKERS__PROCESSES="many")

    assert done.returncode == Exit.CONFIGURATION
    assert "workers.processes" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_application_that_fails_while_it_is_imported_shows_its_own_lines_and_not_ours(
    folder: Folder,
) -> None:
    folder.write("broken.py", "def prices():\n    return {}['euro']\n\nprices()\n")

    done = folder.penstock("run", "broken")

    assert done.returncode == Exit.CONFIGURATION
    assert "application 'broken' cannot be imported" in done.stderr
    assert "KeyError: 'euro'" in done.stderr
    assert "broken.py" in done.stderr
    assert "penstock/cli" not in done.stderr
    assert "importlib" not in done.stderr


def test_workers_that_can_never_work_end_the_start(folder: Folder) -> None:
    folder.write(
        "unready.py",
        "from shop import app\n\n@app.on_worker_start\ndef start(state):\n    raise OSError('no licence file')\n",
    )

    done = folder.penstock("run", "unready")

    assert done.returncode == Exit.WORKERS
    assert "the workers can never work" in done.stderr
    assert "no licence file" in done.stderr


def test_queues_that_exist_otherwise_are_all_named_before_anything_is_consumed(folder: Folder) -> None:
    # Given queues with a priority
    folder.write(
        "before.py",
        "from penstock import App\napp = App()\n"
        "for name in ('orders', 'slow', 'other'):\n"
        "    app.handler(name, type='classic', max_priority=3)(lambda payload: None)\n",
    )
    with folder.running("before") as service:
        service.wait_line('"consuming"')
        service.terminate()
        assert service.wait() == 0

    # When handlers declare two of them without
    done = folder.penstock("run", "shop")

    # Then both are named, with the line to write
    assert done.returncode == Exit.TOPOLOGY
    assert "queue 'orders'" in done.stderr
    assert "queue 'slow'" in done.stderr
    assert done.stderr.count("max_priority=3") == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["run", "shop"], "flag"),
        (["run", "shop"], "environment"),
        (["run", "shop"], "file"),
        (["run", "shop", "--log-level", "debug", "--log-format", "console"], "flag"),
        (["publish", "orders", "{}"], "environment"),
        (["check", "shop"], "flag"),
        (["check", "shop"], "file"),
        (["dead", "list", "orders"], "file"),
        (["dead", "replay", "orders"], "flag"),
        (["demo"], "flag"),
    ],
)
def test_a_password_is_never_said(folder: Folder, closed_port: int, words: list[str], way: str) -> None:
    bus = f"amqp://somebody:{CANARY}@127.0.0.1:{closed_port}/"
    database = f"mysql+pymysql://somebody:{CANARY}@127.0.0.1:{closed_port}/shop"
    flags = []
    environment = {}
    if way == "environment":
        environment = {"PENSTOCK_BUS__URL": bus, "PENSTOCK_DATABASE__URL": database}
    elif way == "file":
        folder.write("penstock.toml", f'[bus]\nurl = "{bus}"\n[database]\nurl = "{database}"\n')
    else:
        flags = ["--bus", bus, *(["--database", database] if words[0] in ("run", "check") else [])]

    done = folder.penstock(*words, *flags, **environment)

    assert done.returncode == Exit.BUS_UNAVAILABLE
    assert "no broker can be reached" in done.stderr
    said = done.stdout + done.stderr
    assert CANARY not in said
    logs = [path.read_text(encoding="utf-8") for path in folder.temporary.rglob("*.log")]
    assert CANARY not in "".join(logs)
    assert "Traceback" not in said


def test_every_error_of_ours_has_an_exit_code_that_is_no_success() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PenstockError)
    ]

    codes = {kind: exit_of(kind.__new__(kind)) for kind in kinds}

    assert len(kinds) > 10
    assert Exit.OK not in codes.values()
    assert Exit.USAGE not in codes.values()
    assert codes[errors.Unroutable] == Exit.NOT_PUBLISHED
    assert codes[errors.BusUnavailable] == Exit.BUS_UNAVAILABLE
    assert codes[errors.TopologyMismatch] == Exit.TOPOLOGY


def test_what_nobody_expected_is_told_with_its_lines_and_without_the_password(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"amqp://somebody:{CANARY}@localhost/"
    secrets.add_url(url)

    @command
    def fails() -> Exit:
        raise RuntimeError(f"cannot talk to {url}")

    with pytest.raises(typer.Exit) as left:
        fails()

    said = capsys.readouterr().err
    assert left.value.exit_code == Exit.NO
    assert "test_refusals.py" in said
    assert "RuntimeError: cannot talk to amqp://somebody:***@localhost/" in said
    assert "was not expected" in said
    assert CANARY not in said
