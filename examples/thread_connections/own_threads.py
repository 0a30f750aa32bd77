"""Eight threads, one connection each; nobody opens or closes one by hand.

python own_threads.py
"""

import threading
from pathlib import Path

from penstock import get_connection

DATABASE = Path("app.db")


def work(number: int) -> None:
    connection = get_connection(DATABASE)
    for step in range(100):
        with connection:
            connection.execute("INSERT INTO steps VALUES (?, ?)", (number, step))
    # No close: the thread's end closes it.


def main() -> None:
    get_connection(DATABASE).execute("CREATE TABLE IF NOT EXISTS steps (thread, step)")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = get_connection(DATABASE).execute("SELECT count(*) AS steps FROM steps").fetchone()
    print(f"{row['steps']} steps of {len(threads)} threads")


if __name__ == "__main__":
    main()
