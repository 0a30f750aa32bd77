"""The process of a database server, as the user whom it wants to be, and the folder that ends with us."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Final

INITIALISE_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 30.0
# The second is for the killed to be gone, who would otherwise write behind the removal's back.
GUARD: Final = (
    'pid=; while read -r line; do pid=$line; done; [ -z "$pid" ] || kill -"$2" "$pid"; sleep 1; rm -rf "$1"'
)


class NoServerError(RuntimeError):
    """Raised when this machine has no such server to start."""


class GuardedFolder:
    """A temporary folder that is removed with us, and one process at a time that ends with us, by a signal."""

    def __init__(self, prefix: str, user: str | None, ends_by: signal.Signals = signal.SIGKILL) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        if user is not None:
            shutil.chown(self.path, user)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.path), str(int(ends_by))], stdin=subprocess.PIPE
        )

    def guard(self, pid: int | None) -> None:
        """Which process is to end when we do; none for None."""
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{pid or ''}\n".encode())
        self._guard.stdin.flush()

    def close(self) -> None:
        self._guard.kill()
        self._guard.wait(STOP_DEADLINE_S)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        shutil.rmtree(self.path, ignore_errors=True)


def run_as(user: str) -> str | None:
    """The user to be, for a server that refuses root; None for who we are. Raises NoServerError without that user."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(user).pw_name
    except KeyError:
        raise NoServerError(f"there is no user {user}: scripts/databases says what to install") from None


def spawn(command: list[str], user: str, *, cwd: Path, output: int) -> subprocess.Popen[bytes]:
    """Start a server's program, with nothing of our environment but the PATH, in a group of its own."""
    as_user = run_as(user)
    group = None if as_user is None else pwd.getpwnam(as_user).pw_gid
    return subprocess.Popen(
        command, env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "HOME": str(cwd)}, cwd=cwd,
        stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0,
        user=as_user, group=group, extra_groups=None if group is None else [],
    )  # fmt: skip


def run(command: list[str], user: str, *, cwd: Path) -> None:
    """Run a program to its end; raises RuntimeError with its words when it fails."""
    with tempfile.TemporaryFile() as output:
        code = spawn(command, user, cwd=cwd, output=output.fileno()).wait(INITIALISE_DEADLINE_S)
        if code != 0:
            output.seek(0)
            raise RuntimeError(f"{command[0]} ended with {code}: {output.read().decode(errors='replace')}")
