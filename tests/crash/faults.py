"""Faults by name, each with its own dice: what `scripts/chaos` draws from.

A fault begins and ends inside its function; whatever it changed is as before when it returns.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from tests.crash.proxy import BOTH, Way
from tests.crash.scene import READY, Scene
from tests.service.processes import kill_quietly, parent_of

Act: TypeAlias = Callable[[Scene, Random], Awaitable[None]]
#: Heartbeat of the services under fault, seconds; silence is noticed after three times that, and one more each.
HEARTBEAT_S: Final = 2
NOTICED_S: Final = 3 * (HEARTBEAT_S + 1)

#: The broker lets who is refused wait for 3 s; the next attempt comes within 3 s.
REFUSED_S: Final = 7.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the catalogue."""

    name: str
    act: Act
    severs: bool
    """True when it can take a publisher confirm away."""
    limit_s: float
    """A new message is done so long after it was confirmed, at the most."""
    weight: int = 2


# --- processes


async def kill_a_worker(scene: Scene, dice: Random) -> None:
    """SIGKILL; waits for its successor."""
    service = scene.service
    await service.wait_line(READY)
    boots = service.boots
    workers = service.worker_pids
    if workers and scene.kill_worker(dice.choice(workers)):
        await service.wait_line(READY, count=boots + 1)


async def kill_all_workers(scene: Scene, _: Random) -> None:
    """SIGKILL to every worker at once."""
    for pid in scene.service.worker_pids:
        scene.kill_worker(pid)


async def freeze_a_worker(scene: Scene, dice: Random) -> None:
    """SIGSTOP, then SIGCONT."""
    wait_s = dice.uniform(0.2, 4)
    workers = scene.service.worker_pids
    if workers:
        pid = dice.choice(workers)
        kill_quietly(pid, signal.SIGSTOP)
        await asyncio.sleep(wait_s)
        kill_quietly(pid, signal.SIGCONT)


async def kill_the_fork_server(scene: Scene, _: Random) -> None:
    """SIGKILL; its workers go with it."""
    workers = scene.service.worker_pids
    if workers:
        for pid in workers:
            scene.ledger.killed(pid)
        kill_quietly(parent_of(workers[0]))


async def kill_the_reactor(scene: Scene, _: Random) -> None:
    """SIGKILL, and a new one."""
    await scene.kill_service()
    await scene.start_service()


async def stop_the_reactor(scene: Scene, _: Random) -> None:
    """SIGTERM, and a new one."""
    await scene.stop_service()
    await scene.start_service()


async def stop_the_group(scene: Scene, _: Random) -> None:
    """SIGTERM to the whole process group, as a service manager does, and a new one."""
    service = scene.service
    os.killpg(service.pid, signal.SIGTERM)
    await scene.stop_service(service)
    await scene.start_service()


async def freeze_the_reactor(scene: Scene, dice: Random) -> None:
    """SIGSTOP for as long as the broker does not mind, or longer."""
    wait_s = dice.choice([dice.uniform(0.1, 2), dice.uniform(6, 12)])
    service = scene.service
    kill_quietly(service.pid, signal.SIGSTOP)
    await asyncio.sleep(wait_s)
    kill_quietly(service.pid, signal.SIGCONT)


async def freeze_one_of_two_reactors(scene: Scene, dice: Random) -> None:
    """SIGSTOP until the broker gives its messages to another one; then it wakes."""
    wait_s = dice.uniform(6, 12)
    frozen = scene.service
    kill_quietly(frozen.pid, signal.SIGSTOP)
    await scene.start_service()
    await asyncio.sleep(wait_s)
    kill_quietly(frozen.pid, signal.SIGCONT)
    await scene.stop_service(frozen)


async def deploy(scene: Scene, _: Random) -> None:
    """A new reactor up, then the old one drained."""
    old = scene.service
    await scene.start_service()
    await scene.stop_service(old)


# --- the broker


async def kill_the_broker(scene: Scene, dice: Random) -> None:
    """SIGKILL, a while without it, and it boots again."""
    wait_s = dice.uniform(0, 3)
    await asyncio.to_thread(scene.broker.sync_declarations)
    await scene.kill_broker()
    await asyncio.sleep(wait_s)
    await scene.start_broker()


async def restart_the_broker(scene: Scene, _: Random) -> None:
    """In good order."""
    await scene.stop_broker()
    await scene.start_broker()


async def freeze_the_broker(scene: Scene, dice: Random) -> None:
    """SIGSTOP for shorter or longer than the heartbeats allow."""
    wait_s = dice.choice([dice.uniform(0.1, 2), dice.uniform(NOTICED_S, NOTICED_S + 4)])
    await asyncio.to_thread(scene.broker.freeze)
    await asyncio.sleep(wait_s)
    await asyncio.to_thread(scene.broker.thaw)


async def close_all_connections(scene: Scene, _: Random) -> None:
    """By the operator's command."""
    await scene.ctl("close_all_connections", "maintenance")


async def raise_the_memory_alarm(scene: Scene, dice: Random) -> None:
    """Publishers are blocked, consumers are not."""
    wait_s = dice.uniform(1, 5)
    await scene.ctl("set_vm_memory_high_watermark", "0.0000001")
    await asyncio.sleep(wait_s)
    await scene.ctl("set_vm_memory_high_watermark", "0.4")


async def raise_the_disk_alarm(scene: Scene, dice: Random) -> None:
    """The same, by the disk."""
    wait_s = dice.uniform(1, 5)
    await scene.ctl("set_disk_free_limit", "1000GB")
    await asyncio.sleep(wait_s)
    await scene.ctl("set_disk_free_limit", "20MB")


async def revoke_the_login(scene: Scene, dice: Random) -> None:
    """Another password, and everybody is thrown out; then the old one again."""
    wait_s = dice.uniform(0.5, 3)
    await scene.ctl("change_password", "guest", "another")
    await scene.ctl("close_all_connections", "maintenance")
    await asyncio.sleep(wait_s)
    await scene.ctl("change_password", "guest", "guest")


async def allow_no_connections(scene: Scene, dice: Random) -> None:
    """The virtual host's limit is nought, and everybody is thrown out."""
    wait_s = dice.uniform(0.5, 3)
    await scene.ctl("set_vhost_limits", "-p", "/", '{"max-connections":0}')
    await scene.ctl("close_all_connections", "maintenance")
    await asyncio.sleep(wait_s)
    await scene.ctl("clear_vhost_limits", "-p", "/")


# --- the network


async def reset_connections(scene: Scene, _: Random) -> None:
    """RST to both ends."""
    scene.proxy.reset()


async def cut_amid_a_frame(scene: Scene, dice: Random) -> None:
    """RST after so many bytes; within 5 s that many pass, or it is taken back."""
    scene.proxy.cut_after(dice.choice(BOTH), dice.randrange(1, 20_000))
    await asyncio.wait((asyncio.ensure_future(scene.proxy.wait_cut()),), timeout=5)
    scene.proxy.heal()


async def open_a_black_hole(scene: Scene, dice: Random) -> None:
    """Both ways, for a moment or until both ends have noticed."""
    wait_s = dice.choice([dice.uniform(0.1, 2), dice.uniform(NOTICED_S, NOTICED_S + 3)])
    scene.proxy.swallow(*BOTH)
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


async def lose_what_the_service_says(scene: Scene, dice: Random) -> None:
    """Half-open: deliveries arrive, acks do not."""
    wait_s = dice.uniform(0.1, 4)
    scene.proxy.swallow(Way.UP)
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


async def lose_what_the_broker_says(scene: Scene, dice: Random) -> None:
    """Half-open: acks and publishes arrive, deliveries and confirms do not."""
    wait_s = dice.uniform(0.1, 4)
    scene.proxy.swallow(Way.DOWN)
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


async def stall_the_network(scene: Scene, dice: Random) -> None:
    """Nothing passes, nothing is lost."""
    wait_s = dice.choice([dice.uniform(0.1, 3), dice.uniform(NOTICED_S, NOTICED_S + 3)])
    scene.proxy.stall()
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


async def slow_the_network(scene: Scene, dice: Random) -> None:
    """Latency, or few bytes a second, or crumbs of a few bytes."""
    wait_s = dice.uniform(1, 6)
    kind = dice.randrange(3)
    if kind == 0:
        scene.proxy.slow(latency_s=dice.uniform(0.05, 0.3))
    elif kind == 1:
        scene.proxy.slow(bytes_per_s=dice.uniform(5_000, 50_000))
    else:
        scene.proxy.slow(slice_bytes=dice.randrange(1, 8))
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


async def refuse_connections(scene: Scene, dice: Random) -> None:
    """RST, and nobody can connect for a while."""
    wait_s = dice.uniform(0.2, 5)
    await scene.proxy.refuse()
    scene.proxy.reset()
    await asyncio.sleep(wait_s)
    await scene.proxy.listen()


async def hang_up_at_once(scene: Scene, dice: Random) -> None:
    """RST, and who connects is accepted and hung up on: a load balancer before a dead broker."""
    wait_s = dice.uniform(0.2, 5)
    scene.proxy.hang_up()
    scene.proxy.reset()
    await asyncio.sleep(wait_s)
    scene.proxy.heal()


# --- the database


async def lock_the_database(scene: Scene, dice: Random) -> None:
    """Another process's transaction holds the file's only write lock."""
    wait_s = dice.uniform(0.5, 4)
    # Waits for the lock in a thread.
    with closing(
        sqlite3.connect(scene.ledger.database, timeout=30, isolation_level=None, check_same_thread=False)
    ) as connection:
        await asyncio.to_thread(connection.execute, "BEGIN IMMEDIATE")
        await asyncio.sleep(wait_s)
        connection.execute("ROLLBACK")


FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault("worker killed", kill_a_worker, severs=False, limit_s=0.5, weight=6),
        Fault("all workers killed", kill_all_workers, severs=False, limit_s=1),
        Fault("worker frozen", freeze_a_worker, severs=False, limit_s=1),
        Fault("fork server killed", kill_the_fork_server, severs=False, limit_s=2),
        Fault("reactor killed", kill_the_reactor, severs=True, limit_s=5, weight=4),
        Fault("reactor stopped", stop_the_reactor, severs=True, limit_s=5),
        Fault("group stopped", stop_the_group, severs=True, limit_s=5),
        Fault("reactor frozen", freeze_the_reactor, severs=True, limit_s=5),
        Fault("one of two reactors frozen", freeze_one_of_two_reactors, severs=True, limit_s=5, weight=1),
        Fault("deploy", deploy, severs=True, limit_s=1),
        Fault("broker killed", kill_the_broker, severs=True, limit_s=5, weight=4),
        Fault("broker restarted", restart_the_broker, severs=True, limit_s=5),
        Fault("broker frozen", freeze_the_broker, severs=True, limit_s=5),
        Fault("connections closed", close_all_connections, severs=True, limit_s=5),
        Fault("memory alarm", raise_the_memory_alarm, severs=True, limit_s=1, weight=1),
        Fault("disk alarm", raise_the_disk_alarm, severs=True, limit_s=1, weight=1),
        Fault("login revoked", revoke_the_login, severs=True, limit_s=REFUSED_S, weight=1),
        Fault("connections forbidden", allow_no_connections, severs=True, limit_s=REFUSED_S, weight=1),
        Fault("connections reset", reset_connections, severs=True, limit_s=5),
        Fault("cut amid a frame", cut_amid_a_frame, severs=True, limit_s=5, weight=4),
        Fault("black hole", open_a_black_hole, severs=True, limit_s=NOTICED_S + 5),
        Fault("half-open, acks lost", lose_what_the_service_says, severs=True, limit_s=NOTICED_S + 5),
        Fault("half-open, deliveries lost", lose_what_the_broker_says, severs=True, limit_s=NOTICED_S + 5),
        Fault("stalled", stall_the_network, severs=True, limit_s=NOTICED_S + 5),
        Fault("slow", slow_the_network, severs=True, limit_s=5),
        Fault("connections refused", refuse_connections, severs=True, limit_s=5),
        Fault("hung up on", hang_up_at_once, severs=True, limit_s=5),
        Fault("database locked", lock_the_database, severs=False, limit_s=5),
    )
}
