"""A RabbitMQ of the tests' own: ports, data and Erlang cookie in a temporary folder, so that tests may kill it.

Three processes; the guard ends the others when this process ends in any way, SIGKILL included:

    guard (sh, reads a pipe from us until its end; then kills the group of the two, and removes the folder)
    epmd  (Erlang's name server, on a port of its own, so that none of the machine is touched or left behind)
    beam  (the broker itself: `pid` is the one to kill)

`python -m tests.broker` runs one in the foreground and prints its URL.
"""

import contextlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol, Self

BOOT_DEADLINE_S = 90.0
STOP_DEADLINE_S = 30.0
CTL_DEADLINE_S = 60.0
PLACES = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
# Flushes the tables in which RabbitMQ 3.10 notes, up to a second late, where each quorum queue's data lies. Killed
# before that, the broker comes back with a queue that never again finds its leader, and answers nobody.
SYNC_DECLARATIONS = "[ok = dets:sync(T) || T <- dets:all()]."
# Outside the range that the system hands out to outgoing connections: a client that tries to come back to a dead
# broker's port must meet nobody there, not even itself (TCP connects a port to itself when it is free to).
PORTS = range(20_000, 32_000)

# The second is for the killed to be gone, who would otherwise write behind the removal's back.
GUARD = 'read -r _; kill -KILL "-$0"; sleep 1; rm -rf "$1"'

CONFIG = """\
listeners.tcp.1 = 127.0.0.1:{port}
log.console = true
log.console.level = info
log.file = false
# What "40 % of the memory" refers to; the alarm's default stays meaningful on a machine of any size.
total_memory_available_override_value = 2GB
disk_free_limit.absolute = 20MB
raft.wal_max_size_bytes = 33554432
"""


class NoBrokerError(RuntimeError):
    """Raised when this machine has no RabbitMQ to start."""


class Broker(Protocol):
    """A broker that belongs to the test: it may be stopped, killed, frozen and reconfigured."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def url(self) -> str: ...
    def url_for(self, virtual_host: str) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def sync_declarations(self) -> None: ...
    def ctl(self, *args: str) -> str: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...


class PrivateBroker:
    """One RabbitMQ node on this machine; `start` boots it (about 4 s) and returns when it answers AMQP.

    Data outlives `stop` and `kill`, so that `start` afterwards is a restart; `close` ends it all and removes it.
    """

    def __init__(self) -> None:
        self._server = find_server()
        self._epmd_command = find_epmd()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-broker-"))
        self.host = "127.0.0.1"
        self.port, self._dist_port, self._epmd_port = free_ports(3)
        self.node = f"penstock-{secrets.token_hex(4)}@localhost"
        self._guard: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._beam: subprocess.Popen[bytes] | None = None
        self._lay_out()

    @property
    def url(self) -> str:
        return self.url_for("/")

    def url_for(self, virtual_host: str) -> str:
        """The AMQP URL of a virtual host; "/" is the one that is always there."""
        path = "" if virtual_host == "/" else virtual_host
        return f"amqp://guest:guest@{self.host}:{self.port}/{path}"

    @property
    def pid(self) -> int:
        """The broker's process; raises RuntimeError when it is not running."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What the broker has written so far, all its lives together."""
        return (self._folder / "broker.log").read_text(errors="replace")

    def start(self) -> None:
        """Boots the node; raises RuntimeError with the end of its log when it does not answer in 90 s."""
        if self._beam is not None:
            raise RuntimeError(f"broker {self.node} is already running, as process {self._beam.pid}")
        group = self._guarded_group()
        with (self._folder / "broker.log").open("ab") as log:
            self._beam = subprocess.Popen(
                [self._server],
                env=self._environment(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=group,
            )
        self._wait_until_it_answers(self._beam)

    def stop(self) -> None:
        """Ends the node in good order: connections are closed with words, data is flushed. Takes about 3 s."""
        beam = self._running()
        beam.send_signal(signal.SIGTERM)
        beam.wait(STOP_DEADLINE_S)
        self._beam = None

    def kill(self) -> None:
        """SIGKILL: what was not on disk is gone, and nobody is told."""
        beam = self._running()
        beam.kill()
        beam.wait(STOP_DEADLINE_S)
        self._beam = None

    def restart(self) -> None:
        """Stops in good order and boots again, on the same port and data."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the connections stand, nobody answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT, after `freeze`."""
        self._running().send_signal(signal.SIGCONT)

    def ctl(self, *args: str) -> str:
        """Runs `rabbitmqctl` (0.3 s) and returns what it prints; raises RuntimeError with its words when it fails."""
        command = [str(Path(self._server).with_name("rabbitmqctl")), "--node", self.node, "--quiet", *args]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CTL_DEADLINE_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def sync_declarations(self) -> None:
        """Puts freshly declared quorum queues on disk; to be called between declaring one and `kill`."""
        self.ctl("eval", SYNC_DECLARATIONS)

    def close(self) -> None:
        """Kills what runs and removes the data; harmless when repeated."""
        for process in (self._guard, self._beam, self._epmd):
            if process is not None:
                process.kill()
                process.wait(STOP_DEADLINE_S)
                if process.stdin is not None:
                    process.stdin.close()
        self._beam = self._epmd = self._guard = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._beam is None:
            raise RuntimeError(f"broker {self.node} is not running")
        return self._beam

    def _lay_out(self) -> None:
        (self._folder / "rabbitmq.conf").write_text(CONFIG.format(port=self.port))
        (self._folder / "enabled_plugins").write_text("[].\n")
        cookie = self._folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)

    def _environment(self) -> dict[str, str]:
        # Nothing is inherited but the PATH: a RABBITMQ_ or ERL_ variable of the machine's would lead elsewhere.
        return {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:{PLACES}",
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            # The start script then becomes the broker, and does not stand between us and it.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Two schedulers, whatever the machine has; peers only from this machine.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _guarded_group(self) -> int:
        if self._epmd is None:
            self._epmd = subprocess.Popen(
                [self._epmd_command, "-port", str(self._epmd_port), "-address", "127.0.0.1"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
            # The pipe's other end is ours alone: it closes when we end, however we end.
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, str(self._epmd.pid), str(self._folder)],
                stdin=subprocess.PIPE,
                process_group=0,
            )
        return self._epmd.pid

    def _wait_until_it_answers(self, beam: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + BOOT_DEADLINE_S
        while not answers_amqp(self.host, self.port):
            code = beam.poll()
            if code is not None or time.monotonic() > deadline:
                self._beam = None
                beam.kill()
                beam.wait(STOP_DEADLINE_S)
                fate = "does not answer" if code is None else f"ended with {code}"
                raise RuntimeError(f"broker {self.node} {fate} while booting:\n{self.log[-4000:]}")
            time.sleep(0.05)


def answers_amqp(host: str, port: int) -> bool:
    """Whether a broker there greets with `connection.start`; a listener that only accepts is not ready."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=2.0) as peer:
        peer.sendall(b"AMQP\x00\x00\x09\x01")
        return peer.recv(1) == b"\x01"
    return False


def find_server() -> str:
    """The start script that runs as whoever calls it; raises NoBrokerError when there is none.

    Debian's `/usr/sbin/rabbitmq-server` is another one: it changes the user and the place of the data.
    """
    debian = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    found = debian if os.access(debian, os.X_OK) else which("rabbitmq-server")
    if found is None:
        raise NoBrokerError("no rabbitmq-server on this machine")
    return found


def find_epmd() -> str:
    """Erlang's name server; raises NoBrokerError when there is none."""
    found = which("epmd")
    if found is None:
        raise NoBrokerError("rabbitmq-server is here, and Erlang's epmd is not on the PATH")
    return found


def which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{PLACES}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; another process may still take one before it is used."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        for port in random.sample(PORTS, len(PORTS)):
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def main() -> None:
    from tests.choose_broker import new_broker

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), new_broker() as broker:
        sys.stdout.write(f"{broker.url}\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
