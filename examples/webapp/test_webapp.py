"""The application's parts without a server."""

from pathlib import Path

import eight_threads
import pytest
from reports import turnover
from webapp import make_tables

from penstock import SQLProxy


def test_the_turnover_is_summed_in_a_subprocess(tmp_path: Path) -> None:
    with SQLProxy(tmp_path / "app.db", processes=1) as proxy:
        make_tables(proxy)
        make_tables(proxy)
        orders = [(1, "Ada", 1.5), (2, "Bob", 2.0), (3, "Ada", 3.0)]
        assert proxy.executemany("INSERT INTO orders VALUES (?, ?, ?)", orders) == 3
        assert proxy.run(turnover) == {"Ada": 4.5, "Bob": 2.0}


def test_eight_threads_print_both_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eight_threads.main(tmp_path / "data.db", rows=1000)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["count(*)", "all rows"]
    assert all("8 threads" in line and "two processes" in line for line in printed)
