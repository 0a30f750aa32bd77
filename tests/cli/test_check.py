"""`penstock check`: what the start would find, without changing or creating anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock.cli.exits import Exit
from tests.cli.program import Folder
from tests.cli.services import declare, depths


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder, with its size and what is in it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_settings_handlers_bus_and_database_are_told(folder: Folder) -> None:
    done = folder.penstock("check", "shop")

    assert (done.returncode, done.stderr) == (Exit.OK, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "bus.url sqlite:///bus.db set" in lines
    assert "workers.processes 1 set" in lines
    assert "bus.heartbeat_s 10 default" in lines
    assert "slow shop.slow a process quorum 256 none 5 will be created" in lines
    assert "async shop.on_the_loop the loop quorum 256 none 5 will be created" in lines
    assert "does not exist yet; the first start creates it" in done.stdout
    assert "SQLite, 1 table" in done.stdout
    assert lines[-1] == "No problem was found: penstock run shop"


def test_nothing_is_created_on_an_empty_disk(folder: Folder) -> None:
    before = everything(folder.path)

    done = folder.penstock("check", "shop", "--database", "sqlite:///other.db")

    assert done.returncode == Exit.OK
    assert "the file does not exist yet" in done.stdout
    assert everything(folder.path) == before


def test_nothing_is_declared_on_an_embedded_bus(folder: Folder) -> None:
    url = f"sqlite:///{folder.path / 'bus.db'}"
    declare(url, "orders")

    done = folder.penstock("check", "shop")

    assert done.returncode == Exit.OK
    assert "exists, 0 waiting" in done.stdout
    assert depths(url, "orders", "slow", "slow.dead") == [0, None, None]


def test_nothing_is_declared_on_a_broker(folder: Folder, amqp_url: str) -> None:
    declare(amqp_url, "orders")

    done = folder.penstock("check", "shop", "--bus", amqp_url)

    assert (done.returncode, done.stderr) == (Exit.OK, "")
    assert "RabbitMQ" in done.stdout
    assert "exists, 0 waiting" in done.stdout
    assert depths(amqp_url, "orders", "slow", "slow.dead") == [0, None, None]


def test_the_permissions_that_a_broker_has_to_give_are_listed(folder: Folder, amqp_url: str) -> None:
    done = folder.penstock("check", "shop", "--only", "orders", "--bus", amqp_url)

    assert "rabbitmqctl set_permissions -p" in done.stdout
    for kind in ("configure", "write", "read"):
        assert any(line.startswith(kind) and "orders" in line for line in done.stdout.splitlines())


def test_queues_that_exist_otherwise_are_problems_of_the_topology(folder: Folder, amqp_url: str) -> None:
    # Given a service whose queues are classic
    folder.write(
        "before.py",
        "from penstock import App\napp = App()\n"
        "for name in ('orders', 'slow'):\n    app.handler(name, type='classic')(lambda payload: None)\n",
    )
    with folder.running("before", "--bus", amqp_url) as service:
        service.wait_line('"consuming"')
        service.terminate()
        assert service.wait() == 0

    # When handlers declare quorum queues
    done = folder.penstock("check", "shop", "--bus", amqp_url)

    # Then each is told with what to write, and nothing has changed
    assert done.returncode == Exit.TOPOLOGY
    assert "queue 'orders': argument" in done.stderr
    assert "write @app.handler('slow', declare=False" in done.stderr
    assert "2 problems were found." in done.stdout
    assert depths(amqp_url, "fails") == [None]


def test_what_declare_false_misses_comes_with_the_commands_that_create_it(
    folder: Folder, amqp_url: str
) -> None:
    folder.write(
        "theirs.py",
        "from penstock import App, Binding\napp = App()\n"
        "@app.handler('theirs', declare=False, bind=[Binding('shop', 'a.*', declare=False)])\n"
        "def handle(payload): ...\n",
    )

    done = folder.penstock("check", "theirs", "--bus", amqp_url)

    assert done.returncode == Exit.TOPOLOGY
    assert "queue 'theirs' does not exist" in done.stderr
    assert "rabbitmqadmin declare queue name=theirs" in done.stdout
    assert "rabbitmqadmin declare exchange name=shop" in done.stdout
    assert depths(amqp_url, "theirs") == [None]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--processes"], Exit.USAGE, "No such option"),
        (["--bus", "sqlite:///app.db"], Exit.BUS_UNAVAILABLE, "another program's SQLite database"),
        (["--bus", "sqlite:////no/such/place/bus.db"], Exit.BUS_UNAVAILABLE, "cannot be created"),
        (["--database", "sqlite:////no/such/place/app.db"], Exit.NO, "cannot be created"),
        (["--database", "sqlite:///shop.py"], Exit.NO, "file is not a database"),
        (["--database", "sqlite:///:memory:", "--only", "async"], Exit.CONFIGURATION, "in memory"),
        (["--database", "sqlite:////tmp", "--only", "async"], Exit.CONFIGURATION, "leads to a folder"),
        (["--database", "oracle://localhost"], Exit.WORKERS, "database.url"),
        (["--database", "postgres://localhost/x"], Exit.WORKERS, "write postgresql+psycopg://"),
        (["--database", "sqlite:///:memory:"], Exit.WORKERS, "Name a file"),
        (
            ["--database", "sqlite+penstock://"],
            Exit.WORKERS,
            "write that database's own URL there, sqlite://",
        ),
        (["--database", "mysql+penstock://"], Exit.WORKERS, "own URL there, mysql+pymysql://"),
        (["--database", "sqlite:///."], Exit.WORKERS, "is a folder: name a file in it"),
        (["--database", "postgresql+psycopg2://localhost/x"], Exit.WORKERS, "write postgresql+psycopg://"),
        (["--database", "mysql+pymysql://a:b@127.0.0.1:1/x"], Exit.NO, "cannot be used"),
    ],
)
def test_a_problem_is_told_in_words_and_is_no_success(
    folder: Folder, words: list[str], code: Exit, said: str
) -> None:
    done = folder.penstock("check", "shop", *words)

    assert done.returncode == code
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_setting_that_keeps_workers_from_starting_is_told_before_they_are_tried(folder: Folder) -> None:
    for name, value, said in (
        ("ISOLATION_LEVEL", "READ COMMITTED", "it knows READ UNCOMMITTED, SERIALIZABLE"),
        ("MAX_CONNECTIONS", "1", "but there are 1 (database.max_connections)"),
    ):
        done = folder.penstock("check", "shop", **{f"PENSTOCK_DATABASE__{name}": value})

        assert done.returncode == Exit.WORKERS
        assert said in " ".join(done.stderr.split())
        assert "1 problem was found." in done.stdout


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite+penstock://"])
def test_a_channel_to_a_database_in_memory_is_told_before_workers_are_tried(folder: Folder, url: str) -> None:
    folder.write(
        "over.py",
        "from penstock import App\napp = App()\n"
        "@app.handler('over', database='channel')\ndef over(payload): ...\n",
    )

    done = folder.penstock("check", "over", "--database", url)

    assert done.returncode == Exit.WORKERS
    assert "needs a database in a file" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("server", "option", "said"),
    [
        ("mariadb", "", "but there are 1 (database.max_connections)"),
        ("postgresql", "", "but there are 1 (database.max_connections)"),
        ("mariadb", "?nonsense=1", "cannot be opened with these settings: TypeError"),
        ("postgresql", "?nonsense=1", "cannot be opened with these settings: ProgrammingError"),
        ("mariadb", "?autocommit=true", "is set to autocommit"),
    ],
)
def test_what_workers_refuse_of_a_server_is_told_before_they_are_tried(
    folder: Folder, server: str, option: str, said: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{server}_url")
    most = "9" if option else "1"

    done = folder.penstock(
        "check", "shop", "--database", url + option, PENSTOCK_DATABASE__MAX_CONNECTIONS=most
    )

    assert done.returncode == Exit.WORKERS
    assert said in " ".join(done.stderr.split())


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_an_adopted_engine_that_commits_each_statement_is_told_before_workers_are_tried(
    folder: Folder, server: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{server}_url")
    folder.write(
        "legacy.py",
        "from sqlalchemy import create_engine\n"
        f"engine = create_engine({url!r}, isolation_level='AUTOCOMMIT')\n",
    )

    done = folder.penstock("check", "shop", PENSTOCK_DATABASE__ENGINE="legacy:engine")

    assert done.returncode == Exit.WORKERS
    assert "the engine of legacy:engine" in " ".join(done.stderr.split())
    assert "is set to autocommit" in " ".join(done.stderr.split())


def test_a_database_that_may_not_be_written_is_a_problem(folder: Folder) -> None:
    if os.geteuid() == 0:
        # Root may write everything; the words are the same for what nobody can open.
        (folder.path / "app.db").write_bytes(b"no database" * 1000)
    else:
        (folder.path / "app.db").chmod(0o400)

    done = folder.penstock("check", "shop")

    assert done.returncode == Exit.NO
    assert "the database sqlite:///app.db cannot be used" in done.stderr


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("sqlite:///app.db", Exit.OK, "SQLite, 1 table"),
        ("mysql+pymysql://user:hush@127.0.0.1:1/x", Exit.NO, "cannot be used"),
    ],
)
def test_an_adopted_engine_is_looked_at_where_it_leads(
    folder: Folder, url: str, code: Exit, said: str
) -> None:
    folder.write("legacy.py", f"from sqlalchemy import create_engine\nengine = create_engine({url!r})\n")

    done = folder.penstock("check", "shop", PENSTOCK_DATABASE__ENGINE="legacy:engine")

    assert done.returncode == code
    assert said in " ".join((done.stdout + done.stderr).split())
    assert "adopted from legacy:engine" in " ".join(done.stdout.split())
    assert "hush" not in done.stdout + done.stderr


def test_a_handler_that_could_never_run_is_a_problem(folder: Folder) -> None:
    folder.write(
        "strange.py",
        "from __future__ import annotations\nfrom penstock import App\napp = App()\n"
        "@app.handler('strange')\ndef handle(payload: Nowhere): ...\n",
    )

    done = folder.penstock("check", "strange")

    assert done.returncode == Exit.CONFIGURATION
    assert "Nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_application_has_to_be_named(folder: Folder) -> None:
    done = folder.penstock("check")

    assert done.returncode == Exit.USAGE
    assert "name the application" in done.stderr


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
def test_a_server_is_told_by_its_own_name(
    folder: Folder, server: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(f"{server}_url")

    done = folder.penstock("check", "shop", "--database", url)

    assert done.returncode == Exit.OK
    assert f"answers, {server} 1" in done.stdout
