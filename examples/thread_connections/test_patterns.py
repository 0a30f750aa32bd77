"""The three patterns as they are used."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import own_threads
import pytest
import scheduled
from flask_notes import create_app

from penstock import close_connections, get_connection


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    close_connections()


def test_threads_write_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    own_threads.main()
    assert capsys.readouterr().out == "800 steps of 8 threads\n"


def test_requests_of_many_threads_each_have_their_transaction() -> None:
    app = create_app(Path("app.db"))

    def post(number: int) -> int:
        return app.test_client().post("/notes", data=f"note {number}").status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(post, range(40))) == [201] * 40
    notes = app.test_client().get("/notes").get_json()
    assert sorted(note["text"] for note in notes) == sorted(f"note {number}" for number in range(40))


def test_a_scheduled_task_holds_nothing_between_its_runs(capsys: pytest.CaptureFixture[str]) -> None:
    scheduled.main(seconds=0.01)
    assert capsys.readouterr().out == "ran 3 times or more\n"
    held = get_connection("app.db")
    thread = threading.Thread(target=scheduled.count_up)
    thread.start()
    thread.join()
    assert held.execute("SELECT count(*) FROM runs").fetchone()[0] >= 4
