"""Large results without a table, and a small table, on every database."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Integer, MetaData, String, Table

metadata = MetaData()
marks = Table(
    "marks", metadata, Column("id", Integer, primary_key=True), Column("v", String(20), unique=True)
)
#: So many rows, of a hundred bytes each.
SERIES: Final = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    "SELECT i, printf('%0100d', i) AS v FROM n",
    "mariadb": "SELECT seq AS i, lpad(seq, 100, '0') AS v FROM seq_1_to_{}",
    "postgresql": "SELECT i, lpad(CAST(i AS text), 100, '0') AS v FROM generate_series(1, {}) AS i",
}


def row(number: int) -> dict[str, Any]:
    """The one with that number."""
    return {"i": number, "v": f"{number:0100}"}
