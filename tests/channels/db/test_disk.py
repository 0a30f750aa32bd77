"""A disk that fails under the file: the call fails, nothing else, and it is over when the disk is well again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own, because the limit on file sizes is a process's.
PROGRAM = """
import asyncio, resource, sys
from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.preparing import Preparer
from penstock.channels.db.service import DatabaseService
from penstock.channels.service import Caller
from penstock.config.database import DatabaseSection
from penstock.errors import DatabaseError

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

async def main():
    service = DatabaseService(DatabaseSection.model_validate({"url": "sqlite:///" + sys.argv[1]}), frame_bytes=1 << 20)
    db = LocalDatabase(service, Caller("handler"), Preparer(is_server=False))
    await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    await db.execute("INSERT INTO t (v) VALUES ('before')")
    connection = service._sqlite._writer._thread._connection

    async def write(number):
        if sys.argv[2] == "block":
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO t (v) VALUES (zeroblob(50000))")
                await tx.execute("INSERT INTO t (v) VALUES (?)", (number,))
        else:
            await db.execute("INSERT INTO t (v) VALUES (zeroblob(50000) || ?)", (number,))

    limit(60_000)
    count = 3 if sys.argv[2] == "group" else 1
    results = await asyncio.gather(*(write(number) for number in range(count)), return_exceptions=True)
    assert all(isinstance(result, DatabaseError) for result in results), results
    assert "disk I/O error; nothing of the statement was kept" in str(results[0]), results
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1}

    limit(resource.RLIM_INFINITY)
    assert await asyncio.gather(*(db.execute("INSERT INTO t (v) VALUES (?)", (n,)) for n in range(count))) == [1] * count
    assert await db.fetch_one("SELECT count(*) AS n FROM t") == {"n": 1 + count}
    assert service._sqlite._writer._thread._connection is not connection, "a handle whose disk failed is not used again"
    await service.aclose()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["alone", "group", "block"])
def test_an_io_error_is_the_calls_and_the_connection_is_opened_anew(database: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(database), how],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
