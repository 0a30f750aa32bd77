"""A reader follows the README word for word, on the embedded bus, with nothing but an installed Penstock."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.pages import ROOT, blocks


def typed_lines() -> list[str]:
    page = [block for block in blocks("sh") if block.page == ROOT / "README.md"]
    return [line for block in page for line in block.text.splitlines() if not line.startswith("scripts/")]


def wait_for(service: subprocess.Popen[str], event: str) -> dict[str, Any]:
    assert service.stderr is not None
    seen = []
    for line in service.stderr:
        seen.append(line)
        said: dict[str, Any] = json.loads(line)
        if said["event"] == event:
            return said
    raise AssertionError(f"the service ended before it said {event!r}: {seen}")


def test_the_readme_leads_to_a_row_and_a_dead_letter(tmp_path: Path) -> None:
    (program,) = [block for block in blocks("python") if block.page == ROOT / "README.md"]
    (tmp_path / "orders.py").write_text(program.text, encoding="utf-8")
    make_table, run_service, publish_good, publish_bad, list_dead = typed_lines()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Not where other services of this user have theirs.
        "PENSTOCK_SERVICE__HEALTH_FILE": str(tmp_path / "health.json"),
    }

    def type_in(line: str) -> str:
        done = subprocess.run(
            line,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    type_in(make_table)
    with subprocess.Popen(
        f"exec {run_service}", shell=True, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as service:
        try:
            wait_for(service, "consuming")
            type_in(publish_good)
            type_in(publish_bad)
            dead = wait_for(service, "message dead lettered")
            assert "id: Input should be a valid integer" in dead["reason"]
            assert dead["message_id"] in type_in(list_dead)
            service.send_signal(signal.SIGTERM)
            stopped = wait_for(service, "stopped")
            assert (stopped["acked"], stopped["dead"]) == (1, 1)
            assert service.wait(30) == 0
            # Ends when the last process of the service has ended.
            assert service.stderr is not None
            assert service.stderr.read() == ""
        finally:
            service.kill()

    database = sqlite3.connect(tmp_path / "app.db")
    rows = database.execute("SELECT id, total FROM orders").fetchall()
    database.close()
    assert rows == [(1, 9.99)]
