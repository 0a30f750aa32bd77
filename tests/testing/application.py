"""An application for worker processes to import."""

import os
from pathlib import Path

from penstock import App

app = App()


@app.handler("pids")
def write_pid(path: str) -> None:
    Path(path).write_text(str(os.getpid()))


@app.handler("sent.on", retry=None)
def send_on(path: str) -> None:
    write_pid.send(path)
