"""A slot: one worker process behind an executor of its own, its channel, its flight recorder.

```
            ┌──── batch ────▶ executor (1 worker) ──── report ────┐
 run(works) ┤                                                     ├─▶ BatchEnd
            └─ recorder: stop ▶ / ◀ phase, marks ─ channel: Ended ┘
```
One executor of N workers would fail every pending future when one child dies, and name no culprit; with slots a dead
child costs the one message that it was running.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from penstock.app.outcomes import Outcome
from penstock.channels import jobs, wire
from penstock.channels.evidence import DUMP_SIGNAL
from penstock.channels.jobs import Batch, BootReport
from penstock.channels.plan import WorkerPlan
from penstock.channels.recorder import Mark, Phase, Reading, Recorder
from penstock.channels.service import Caller, Service
from penstock.channels.serving import ChannelServer
from penstock.errors import ChannelError, PenstockError
from penstock.reactor.batch_end import BatchEnd, Death, after_death, after_report
from penstock.reactor.finishing import to_its_end
from penstock.reactor.launch import CLOSE, RUN_BATCH, Launched, launch
from penstock.reactor.postmortem import Postmortem
from penstock.reactor.processes import UNTOLD_EXIT_CODE, is_readable, open_pidfd, sent_to
from penstock.reactor.slot_state import TRANSITIONS, SlotDied, SlotFault, SlotState, refusal_of
from penstock.reactor.work import Work, job_of, note_batch

#: A dead worker's socket ends when its process does, unless a child of the handler holds a copy: not waited for longer.
EOF_WAIT_S: Final = 1.0
#: A fork server that is dying is gone within so long.
FORK_SERVER_WAIT_MS: Final = 500

_log = structlog.get_logger("penstock.slots")


class Slot:
    """One worker process; `boot` once, then `run` batch after batch, then `close` or `kill`."""

    def __init__(
        self,
        plan: WorkerPlan,
        services: Mapping[str, Service],
        on_line: Callable[[wire.Line], None],
        on_idle_death: Callable[[Slot], None],
    ) -> None:
        self.name = plan.slot
        self.state = SlotState.NEW
        self.pid: int | None = None
        self.messages = 0
        """Deliveries run so far."""
        self._plan = plan
        self._services = services
        self._on_line = on_line
        self._on_idle_death = on_idle_death
        self._exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._recorder = Recorder.create()
        self._postmortem = Postmortem()
        self._launched: Launched | None = None
        self._server: ChannelServer | None = None
        self._pidfd: int | None = None
        self._fork_server_pidfd: int | None = None
        self._batch = 0
        self._works: Sequence[Work] = ()
        self._boundary = 0
        self._told: dict[int, Outcome] = {}
        self._told_more = asyncio.Event()
        self._killed_because: str | None = None

    def __repr__(self) -> str:
        return f"<Slot {self.name} [{self.state.value}, pid {self.pid}, {self.messages} messages]>"

    # --- life

    async def boot(self) -> None:
        """Start the process and wait until it is ready: application imported, connection open, start hooks run.

        Raises `SlotFault` when it never will be, `SlotDied` when the process went away before.
        """
        self._become(SlotState.BOOTING)
        try:
            await self._launch(await self._serve_channel())
            report = await self._boot_report()
        except (BrokenProcessPool, OSError, EOFError, CancelledError) as error:
            death = await self._bury()
            how = f"died while it was booting ({death.how})"
            if self._launched is None:
                how = f"could not be started ({refusal_of(error)})"
            raise SlotDied(f"the worker process of slot {self.name} {how}") from error
        except BaseException:
            await self._bury()
            raise
        if report.fault is not None:
            await self._bury()
            raise SlotFault(report.fault)
        if not report.preloaded:
            _log.warning(
                "the fork server could not preload Penstock: workers boot slowly and take more memory",
                slot=self.name,
            )
        if self._plan.start_method == "forkserver" and not self._plan.in_process:
            self._fork_server_pidfd = open_pidfd(report.parent_pid)
        self.pid = report.pid
        self._become(SlotState.IDLE)

    async def close(self, timeout_s: float) -> None:
        """End in order: stop hooks, a goodbye to the database, then the process; killed after `timeout_s` seconds."""
        if self.state is not SlotState.IDLE or self._launched is None:
            await self.kill("it was not idle when it was to be closed")
            return
        self._become(SlotState.CLOSING)
        try:
            future = asyncio.wrap_future(self._launched.executor.submit(CLOSE))
            await asyncio.wait_for(future, timeout_s)
            await asyncio.wait_for(asyncio.to_thread(self._launched.executor.shutdown), timeout_s)
        except BrokenProcessPool:
            _log.warning("a worker died while it was closing", slot=self.name, pid=self.pid)
        except TimeoutError:
            _log.warning(
                "a worker did not end in time: it is killed",
                slot=self.name,
                pid=self.pid,
                timeout_s=timeout_s,
            )
        await self._bury()

    async def kill_overdue(self, overdue: Reading, because: str) -> bool:
        """Have the worker write its stack, then kill it; False when it had come to the end of that delivery meanwhile."""
        if self._killed_because is not None:
            return False
        self.note_memory()
        if sent_to(self._pidfd, DUMP_SIGNAL):
            await self._postmortem.wait_stack()
        reading, work = self.reading()
        if work is None or (reading.batch, reading.index) != (overdue.batch, overdue.index):
            self._postmortem.evidence.clear()
            return False
        await self.kill(because)
        return True

    async def kill(self, because: str) -> None:
        """Kill the process; what it was running is in the `BatchEnd` of its `run`, which returns soon after."""
        if self.state is SlotState.DEAD:
            return
        self._killed_because = because
        was_running = self.state in (SlotState.BUSY, SlotState.BOOTING)
        self._send_kill()
        if not was_running:
            await self._bury()

    # --- work

    async def run(self, works: Sequence[Work]) -> BatchEnd:
        """Run a batch; never raises for what happens to the process: the slot's state says whether it lives."""
        if self._launched is None:
            msg = f"{self!r} was not booted"
            raise PenstockError(msg)
        self._become(SlotState.BUSY)
        self._batch += 1
        self._works = works
        self._boundary = len(works)
        self._told.clear()
        self._recorder.set_stop(len(works))
        encoded = jobs.encode(Batch(self._batch, [job_of(work) for work in works]))
        try:
            future: Future[bytes] = self._launched.executor.submit(RUN_BATCH, encoded)
            encoded_report: bytes = await asyncio.wrap_future(future)
            report = jobs.decode_report(encoded_report)
        except Exception as error:  # noqa: BLE001 - whatever it was, this worker's word is not to be had any more
            return self._after_death(await self._bury(), error)
        if not await self._has_told(report.marks):
            msg = "its channel ended before it had told every outcome"
            return self._after_death(await self._bury(), ChannelError(msg))
        end = after_report(works[: self._boundary], report.marks, self._told)
        note_batch(works, report.run_ns, time.monotonic())
        self.messages += len(report.run_ns)
        self._become(SlotState.IDLE)
        return end

    def reading(self) -> tuple[Reading, Work | None]:
        """What the worker is doing now, and in which delivery; None between two."""
        reading = self._recorder.read()
        running = (
            self.state is SlotState.BUSY
            and reading.batch == self._batch
            and reading.phase not in (Phase.IDLE, Phase.ENDED)
            and reading.index < len(self._works)
        )
        return reading, self._works[reading.index] if running else None

    def ask_back(self) -> bool:
        """Lower the batch's stop index so that nothing more of it is begun; False when nothing is left to take."""
        if self.state is not SlotState.BUSY:
            return False
        reading = self._recorder.read()
        first = reading.index + 1 if reading.batch == self._batch else 0
        if first >= self._boundary:
            return False
        self._recorder.set_stop(first)
        return True

    def take_back(self) -> list[Work]:
        """A loop turn after `ask_back`: the deliveries that can no longer be begun here."""
        if self.state is not SlotState.BUSY:
            return []
        reading = self._recorder.read()
        if reading.batch != self._batch:
            return []
        # The delivery at the index may have been begun before the stop was lowered: it stays.
        first = reading.index + 1
        if first >= self._boundary:
            return []
        self._recorder.set_stop(first)
        taken = list(self._works[first : self._boundary])
        self._boundary = first
        return taken

    def note_memory(self) -> None:
        """Look how much memory the process has had so far."""
        self._postmortem.note_memory(self.pid)

    # --- inside

    def _become(self, state: SlotState) -> None:
        if state not in TRANSITIONS[self.state]:
            msg = f"slot {self.name} cannot become {state.value} while it is {self.state.value}"
            raise PenstockError(msg)
        self.state = state

    def _on_ended(self, message: wire.Ended) -> None:
        if message.batch == self._batch:
            self._told[message.index] = message.outcome
            self._told_more.set()

    async def _has_told(self, marks: bytes) -> bool:
        """Wait for what the report has overtaken; False when the channel ended without it."""
        told = {index for index, mark in enumerate(marks[: self._boundary]) if mark == Mark.TOLD}
        server = self._server
        while not told <= self._told.keys():
            if server is None or server.eof.done():
                return False
            self._told_more.clear()
            more = asyncio.ensure_future(self._told_more.wait())
            await asyncio.wait((more, server.eof), return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
        return True

    async def _serve_channel(self) -> socket.socket:
        """Serve one end of a new socket; returns the worker's end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._server = await ChannelServer.start(
            ours,
            self._services,
            Caller(f"worker {self.name}", is_worker=True),
            limit_bytes=self._plan.limits.frame_bytes,
            on_ended=self._on_ended,
            on_line=self._on_line,
        )
        self._server.eof.add_done_callback(self._on_channel_end)
        return theirs

    def _on_channel_end(self, eof: asyncio.Future[BaseException | None]) -> None:
        """A worker without its channel cannot say how its next delivery ends: it is replaced."""
        if eof.result() is not None:
            _log.error(
                "a worker's channel broke: the worker is replaced",
                slot=self.name,
                pid=self.pid,
                error=str(eof.result()),
            )
        if self.state is SlotState.IDLE:
            self._on_idle_death(self)

    async def _boot_report(self) -> BootReport:
        if self._launched is None:
            msg = f"{self!r} was not launched"
            raise PenstockError(msg)
        encoded: bytes = await asyncio.wrap_future(self._launched.boot)
        return jobs.decode_boot_report(encoded)

    async def _launch(self, theirs: socket.socket) -> None:
        descriptors = self._recorder.fd, self._postmortem.evidence.fd
        launching = asyncio.ensure_future(asyncio.to_thread(launch, self._plan, theirs, *descriptors))
        try:
            self._launched = await asyncio.shield(launching)
        except asyncio.CancelledError:
            # The thread cannot be stopped: what it starts has to be known, or nobody would end it.
            self._launched = await launching
            raise
        finally:
            self._watch_process()

    def _watch_process(self) -> None:
        process = self._launched.process if self._launched is not None else None
        if process is not None and process.pid is not None:
            self.pid = process.pid
            self._pidfd = open_pidfd(process.pid)
        if self._pidfd is not None:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)
        if self._killed_because is not None:
            self._send_kill()

    def _on_exit(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
        if not self._exited.done():
            self._exited.set_result(None)
        if self.state is SlotState.IDLE:
            self._on_idle_death(self)

    def _send_kill(self) -> None:
        if self._pidfd is None and self._launched is not None and self._launched.process is not None:
            self._launched.process.kill()
        elif not sent_to(self._pidfd, signal.SIGKILL):
            _log.debug("the worker had ended before it was killed", slot=self.name, pid=self.pid)

    async def _bury(self) -> Death:
        """Make sure that the process is dead and everything it wrote is read; returns how it died."""
        # To its end, for whoever cancels forgets the slot next, and the executor's thread is still about it.
        return await to_its_end(self._bury_it())

    async def _bury_it(self) -> Death:
        # A broken executor is no proof of a dead child: with the fork server gone, children lived on and committed.
        self._send_kill()
        if self._pidfd is not None:
            await asyncio.wait((self._exited,))
        if self._server is not None:
            if self._launched is not None and self._launched.process is not None:
                await asyncio.wait((self._server.eof,), timeout=EOF_WAIT_S)
            self._server.close()
            await self._server.wait_calls_forgotten()
        process = self._launched.process if self._launched is not None else None
        if self._launched is not None:
            await asyncio.to_thread(self._launched.executor.shutdown, cancel_futures=True)
        is_blameless = await self._has_fork_server_died(process)
        if self.state is not SlotState.DEAD:
            self._become(SlotState.DEAD)
        because = self._killed_because or ("it was never started" if self._launched is None else None)
        noted_bytes = self._recorder.peak_bytes()
        return self._postmortem.death(process, because, noted_bytes, blameless=is_blameless)

    def _after_death(self, death: Death, error: BaseException) -> BatchEnd:
        works = self._works[: self._boundary]
        reading: Reading | None = self._recorder.read()
        if reading is not None and reading.batch != self._batch:
            reading = None
        marks = bytes(len(works)) if reading is None else self._recorder.marks(len(works))
        end = after_death(works, marks, self._told, reading, death)
        _log.warning(
            "a worker died: its slot comes back by itself",
            slot=self.name,
            pid=self.pid,
            how=death.how,
            phase=reading.phase.words if reading is not None else Phase.IDLE.words,
            peak_mib=death.peak_bytes >> 20,
            fork_server_died=death.blameless,
            not_begun=len(end.unstarted),
            error=repr(error),
        )
        return end

    async def _has_fork_server_died(self, process: BaseProcess | None) -> bool:
        if self._fork_server_pidfd is None or process is None:
            return False
        # Its children are killed a moment before it is gone itself; then nobody could tell their exit code.
        wait_ms = FORK_SERVER_WAIT_MS if process.exitcode == UNTOLD_EXIT_CODE else 0
        return await asyncio.to_thread(is_readable, self._fork_server_pidfd, wait_ms)

    def forget(self) -> None:
        """Give the descriptors back; called once, when the slot is dead and its last batch was looked at."""
        self._recorder.close()
        self._postmortem.evidence.close()
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
        for fd in (self._pidfd, self._fork_server_pidfd):
            if fd is not None:
                os.close(fd)
        self._pidfd = self._fork_server_pidfd = None
        if self._launched is not None and self._launched.process is not None:
            # The garbage collector would close its two pipes too, some dozens of deaths later.
            self._launched.process.close()
