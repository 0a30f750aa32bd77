"""A task that runs every so often, for weeks, in a thread of its own.

python scheduled.py
"""

import threading
import time
from pathlib import Path

from penstock import close_connection, get_connection

DATABASE = Path("app.db")


def count_up() -> None:
    with get_connection(DATABASE) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS runs (at REAL)")
        connection.execute("INSERT INTO runs VALUES (?)", (time.time(),))
    # Hours pass until the next run: no file, or login at a server, is held meanwhile.
    close_connection(DATABASE)


def every(seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        count_up()


def main(seconds: float = 0.1, runs: int = 3) -> None:
    stop = threading.Event()
    scheduler = threading.Thread(target=every, args=(seconds, stop))
    count_up()
    scheduler.start()
    while get_connection(DATABASE).execute("SELECT count(*) FROM runs").fetchone()[0] < runs:
        time.sleep(seconds)
    stop.set()
    scheduler.join()
    print(f"ran {runs} times or more")


if __name__ == "__main__":
    main()
