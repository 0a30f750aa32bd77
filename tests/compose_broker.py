"""The same broker of the tests' own, in a container: for machines that have Docker Compose and no RabbitMQ."""

import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.broker import BOOT_DEADLINE_S, SYNC_DECLARATIONS, NoBrokerError, answers_amqp, free_ports

COMPOSE_FILE = Path(__file__).with_name("compose.yml")
# The first start may have to fetch the image.
UP_DEADLINE_S = 600.0


class ComposeBroker:
    """One RabbitMQ container with the methods of `PrivateBroker`; raises NoBrokerError without Docker Compose."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        (self.port,) = free_ports(1)
        docker = shutil.which("docker")
        if docker is None or not _works([docker, "compose", "version"]) or not _works([docker, "info"]):
            raise NoBrokerError("no Docker Compose either")
        self._project = f"penstock-test-{secrets.token_hex(4)}"
        self._compose = [docker, "compose", "--project-name", self._project, "--file", str(COMPOSE_FILE)]
        self._environment = {**os.environ, "PENSTOCK_TEST_PORT": str(self.port)}
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_for("/")

    def url_for(self, virtual_host: str) -> str:
        """The AMQP URL of a virtual host; "/" is the one that is always there."""
        path = "" if virtual_host == "/" else virtual_host
        return f"amqp://guest:guest@{self.host}:{self.port}/{path}"

    def start(self) -> None:
        """Makes or starts the container; raises RuntimeError when the broker does not answer in 90 s."""
        if self._guard is None:
            # Ends the container when this process ends in any way: the pipe closes.
            self._guard = subprocess.Popen(
                [
                    "/bin/sh",
                    "-c",
                    'read -r _; exec "$0" "$@"',
                    *self._compose,
                    "down",
                    "--timeout",
                    "0",
                    "--volumes",
                ],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        self._run("up", "--detach", "--no-recreate", timeout_s=UP_DEADLINE_S)
        deadline = time.monotonic() + BOOT_DEADLINE_S
        while not answers_amqp(self.host, self.port):
            if time.monotonic() > deadline:
                raise RuntimeError(f"broker {self._project} does not answer:\n{self._run('logs')[-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the node in good order."""
        self._run("stop")

    def kill(self) -> None:
        """SIGKILL: what was not on disk is gone, and nobody is told."""
        self._run("kill")

    def restart(self) -> None:
        """Stops in good order and boots again, on the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """The connections stand, nobody answers."""
        self._run("pause")

    def thaw(self) -> None:
        """After `freeze`."""
        self._run("unpause")

    def ctl(self, *args: str) -> str:
        """Runs `rabbitmqctl` in the container; raises RuntimeError with its words when it fails."""
        return self._run("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet", *args)

    def sync_declarations(self) -> None:
        """Puts freshly declared quorum queues on disk; to be called between declaring one and `kill`."""
        self.ctl("eval", SYNC_DECLARATIONS)

    def close(self) -> None:
        """Removes the container and its data; harmless when repeated."""
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        guard.communicate(timeout=UP_DEADLINE_S)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, *args: str, timeout_s: float = BOOT_DEADLINE_S) -> str:
        done = subprocess.run(
            [*self._compose, *args],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"docker compose {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout


def _works(command: list[str]) -> bool:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
