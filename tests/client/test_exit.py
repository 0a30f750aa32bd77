"""The end of a program: nothing hangs, nothing is said, nothing that was returned is lost."""

import subprocess
import sys
import time

import pytest

from tests.client.reader import Reader

PROGRAMS = {
    "a client that was never closed": """
client = Client(url)
client.publish(queue, {}, id="m-1")
""",
    "two clients and a default one": """
import os
from penstock.client import default_client
os.environ["PENSTOCK_BUS__URL"] = url
clients = [Client(url), default_client()]
for client in clients:
    client.publish(queue, {})
""",
    "threads that outlive the main one": """
import threading, time
client = Client(url)
def publish():
    threading.main_thread().join()
    for _ in range(5):
        client.publish(queue, {})
threading.Thread(target=publish).start()
""",
    "a pool whose work is not done yet": """
from concurrent.futures import ThreadPoolExecutor
client = Client(url)
pool = ThreadPoolExecutor(2)
answers = [pool.submit(client.publish, queue, {}) for _ in range(20)]
""",
    "a thread that is still publishing": """
import threading
from penstock import ClientError
client = Client(url)
begun = threading.Event()
def publish():
    try:
        for _ in client.publish_many((queue, number) for number in range(10**9)):
            begun.set()
    except ClientError:
        pass  # it may well be told that the program ends
threading.Thread(target=publish, daemon=True).start()
begun.wait()
""",
    "a publish at exit": """
import atexit
client = Client(url)
atexit.register(lambda: client.publish(queue, {}))
""",
}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("a client that was never closed", 1),
        ("two clients and a default one", 2),
        ("threads that outlive the main one", 5),
        ("a pool whose work is not done yet", 20),
        ("a thread that is still publishing", None),
        ("a publish at exit", 1),
    ],
)
def test_a_program_ends_at_once_and_without_a_word(
    name: str, count: int | None, url: str, reader: Reader
) -> None:
    program = f"import sys\nfrom penstock import Client\nurl, queue = sys.argv[1:]\n{PROGRAMS[name]}"
    began_s = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, url, reader.queue],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began_s < 15
    if count is not None:
        assert len(reader.read_ids(count)) == count
