"""Ready means: every queue is consumed, a worker is booted, the database answers."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable

import pytest

from penstock.health import database
from penstock.health.database import DatabaseWatch
from penstock.health.readiness import Readiness
from tests.broker import Broker
from tests.cli.program import DEADLINE_S, Folder, until
from tests.health.watched import VISIBLE_S, watched
from tests.servers import Server


def test_a_service_whose_broker_is_away_is_live_and_not_ready(folder: Folder, own_broker: Broker) -> None:
    folder.environment["PENSTOCK_BUS__URL"] = own_broker.url
    folder.environment["PENSTOCK_BUS__RECONNECT_CAP_S"] = "0.2"
    with watched(folder) as service:
        service.until_ready()
        own_broker.stop()
        service.until_not_ready("not consumed: 'plain', 'blocks'")
        service.service.wait_line("connection to the broker lost")
        during = service.metrics()
        assert service.get("/live").status == 200
        not_ready = folder.penstock("check", "watched", "--ready")
        own_broker.start()
        service.until_ready()
        after = service.metrics()

    consuming = 'penstock_consuming{handler="watched.plain",queue="plain"}'
    assert (during[consuming], during["penstock_bus_connected"], during["penstock_ready"]) == (0, 0, 0)
    assert (after[consuming], after["penstock_bus_connected"], after["penstock_ready"]) == (1, 1, 1)
    assert "not consumed: 'plain', 'blocks'" in not_ready.stderr
    names = [f'penstock_reconnects_total{{connection="{one}"}}' for one in ("consuming", "publishing")]
    assert [(during[name], after[name]) for name in names] == [(0, 1), (0, 1)]


def test_a_service_whose_broker_has_an_alarm_is_ready_and_says_what_waits(
    folder: Folder, own_broker: Broker
) -> None:
    folder.environment["PENSTOCK_BUS__URL"] = own_broker.url
    closed = folder.write("closed", "")
    folder.write(
        "talks.py",
        "import time\nfrom pathlib import Path\nfrom penstock import App, Context\napp = App()\n\n"
        "@app.handler('talks')\ndef talks(payload: dict, ctx: Context) -> None:\n"
        "    while Path('closed').exists():\n        time.sleep(0.02)\n"
        "    ctx.bus.publish('heard', {})\n\n"
        "@app.handler('heard')\ndef heard(payload: dict) -> None: ...\n",
    )
    with watched(folder, "talks") as service:
        service.until_ready()
        before = service.get("/ready").state
        folder.penstock("publish", "talks", "{}")
        own_broker.ctl("set_vm_memory_high_watermark", "0.0000001")
        # RabbitMQ tells an alarm to those who publish, and only then.
        closed.unlink()
        until(lambda: service.metrics()["penstock_publishing_blocked"] == 1, "an alarm")
        during, answer = service.metrics(), service.get("/ready")
        own_broker.ctl("set_vm_memory_high_watermark", "0.6")
        until(lambda: service.metrics()["penstock_publishing_blocked"] == 0, "the end of the alarm")
        heard = 'penstock_acks_total{handler="talks.heard",queue="heard"}'
        until(lambda: service.metrics()[heard] == 1, "what waited")
        after, at_last = service.metrics(), service.get("/ready").state

    assert before == {"state": "ready"}
    assert answer.status == 200
    assert answer.state["warnings"] == ["the bus takes no messages, what is published waits: low on memory"]
    assert (during["penstock_ready"], during["penstock_publishing_alarms_total"]) == (1, 1)
    assert (after["penstock_publishing_alarms_total"], at_last) == (1, before)


def test_a_service_whose_database_is_away_says_why(folder: Folder) -> None:
    path, aside = folder.path / "app.db", folder.path / "aside.db"
    with watched(folder) as service:
        service.until_ready()
        path.rename(aside)
        path.write_bytes(b"this is no database" * 100)
        service.until_not_ready("file is not a database")
        service.service.wait_line("the database does not answer: the service is not ready")
        assert service.metrics()["penstock_database_answers"] == 0
        assert service.get("/live").status == 200
        path.unlink()
        shutil.move(aside, path)
        service.until_ready()
        assert service.metrics()["penstock_database_answers"] == 1


@pytest.mark.parametrize("has_url", [False, True])
def test_a_service_whose_adopted_engine_has_no_server_says_why(
    folder: Folder, own_mariadb: Server, has_url: bool
) -> None:
    folder.write(
        "legacy.py", f"from sqlalchemy import create_engine\nengine = create_engine({own_mariadb.url!r})\n"
    )
    url = 'url = "sqlite:///app.db"\n' if has_url else ""
    folder.write("penstock.toml", f'[database]\n{url}engine = "legacy:engine"\n[workers]\nprocesses = 1\n')
    with watched(folder) as service:
        service.until_ready()
        own_mariadb.stop()
        service.until_not_ready("Can't connect to MySQL server")
        assert service.metrics()["penstock_database_answers"] == 0
        own_mariadb.start()
        service.until_ready()
        if has_url:
            (folder.path / "app.db").write_bytes(b"this is no database" * 100)
            service.until_not_ready("file is not a database")


def test_a_service_without_a_worker_is_not_ready_until_one_is_booted(folder: Folder) -> None:
    folder.write(
        "gated.py",
        "import time\nfrom pathlib import Path\nfrom penstock import App\napp = App()\n\n"
        "@app.on_worker_start\ndef wait(state):\n"
        "    while Path('closed').exists():\n        time.sleep(0.02)\n\n"
        "@app.handler('dies')\ndef dies(payload: dict) -> None:\n    import os\n    os._exit(1)\n",
    )
    with watched(folder, "gated") as service:
        service.until_ready()
        closed = folder.write("closed", "")
        folder.penstock("publish", "dies", "{}")
        service.until_not_ready("no worker is booted")
        during = service.metrics()
        closed.unlink()
        service.until_ready()

    assert during['penstock_slots{phase="booting"}'] == 1
    assert during["penstock_worker_deaths_total"] >= 1


def test_a_starting_service_says_so_and_a_stopping_one_says_nothing_else() -> None:
    stopping = asyncio.Event()
    readiness = Readiness(lambda: ["it is starting"], DatabaseWatch(lambda: None), stopping)

    assert readiness.why_not() == ("it is starting", "the database has not answered yet")
    stopping.set()
    assert readiness.why_not() == ("it is stopping",)


def asked(ask: Callable[[], str | None]) -> str | None:
    watch = DatabaseWatch(ask)
    watch.start()
    try:
        until(lambda: watch.why_not() != "the database has not answered yet", "an answer")
        return watch.why_not()
    finally:
        watch.stop()


def test_the_database_is_asked_from_a_thread_and_whatever_it_raises_is_no_answer() -> None:
    def breaks() -> str | None:
        raise OSError("no route")

    assert asked(lambda: None) is None
    assert asked(lambda: "it refuses the login") == "it refuses the login"
    assert asked(breaks) == "the database cannot be asked: OSError: no route"


def test_a_database_that_has_gone_silent_is_away_once_its_last_answer_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert database.ASK_EVERY_S < database.ANSWER_LASTS_S <= VISIBLE_S
    monkeypatch.setattr(database, "ASK_EVERY_S", 0.01)
    monkeypatch.setattr(database, "ANSWER_LASTS_S", 0.2)
    answers, silence = iter([None]), threading.Event()

    def ask() -> str | None:
        if next(answers, "silent") == "silent":
            silence.wait(DEADLINE_S)
        return None

    watch = DatabaseWatch(ask)
    watch.start()
    try:
        until(lambda: watch.why_not() is None, "an answer")
        until(lambda: "has not answered for" in str(watch.why_not()), "a database that is away")
    finally:
        watch.stop()
        silence.set()
