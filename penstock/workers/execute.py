"""One delivery in a worker, from its body to its outcome.

```
 decode ─▶ handler ─▶ commit ─▶ Returned(what it published)
    │         │          │
    ▼         ▼          ▼
Unreadable  rollback ─▶ Raised / AskedRetry / Rejected
               └ a deadlock, a serialization failure: from the top, three times at most
```
Everything is caught here, SystemExit and KeyboardInterrupt too: one bad message costs itself.
"""

from __future__ import annotations

import inspect
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from types import SimpleNamespace
from typing import Any, Final, NoReturn, Protocol

import structlog
from structlog.typing import FilteringBoundLogger

from penstock.app.context import BusChannel, Context, DatabaseChannel, WorkerDatabase
from penstock.app.current import running_database
from penstock.app.decode import Decoder
from penstock.app.failure import failure_of, outcome_of
from penstock.app.handlers import AnyHandler
from penstock.app.messages import Outgoing
from penstock.app.outcomes import (
    DONE,
    Outcome,
    Raised,
    Returned,
    Unreadable,
)
from penstock.channels.jobs import Job, message_info
from penstock.channels.recorder import Phase
from penstock.errors import ChannelClosed, DatabaseBusy, DatabaseLost, HandlerError, PayloadError
from penstock.workers.conflicts import wait_before_rerun
from penstock.workers.deadline import SoftDeadline

#: Of a handler's forked child that came back from the handler; EX_SOFTWARE in sysexits.h.
FORKED_EXIT_CODE: Final = 70


class MessageDatabase(WorkerDatabase, Protocol):
    """The worker's own connection, as execution drives it."""

    @property
    def current(self) -> WorkerDatabase:
        """The one of the message that has begun."""
        ...

    @property
    def in_transaction(self) -> bool:
        """True when this message has begun a transaction."""
        ...

    def begin(self, handler: str, isolation: str | None) -> None:
        """A message begins; costs nothing until the handler touches it, unless an isolation level has to be set.

        Raises what the database raises.
        """
        ...

    def commit(self) -> None:
        """Flush the session and commit; raises what the database raises."""
        ...

    def rollback(self) -> None:
        """Undo this message's transaction; never raises."""
        ...

    def is_lost(self, error: BaseException) -> bool:
        """True when the error means that the connection broke, not that the statement was wrong."""
        ...

    def is_lost_amid(self, error: BaseException) -> bool:
        """True when it is lost and lived when the handler took it: then the message itself may be why."""
        ...

    def is_conflict(self, error: BaseException) -> bool:
        """True when another transaction was in the way: the handler may run again at once."""
        ...

    def is_busy(self, error: BaseException) -> bool:
        """True when another writer held the lock too long."""
        ...


class MessageBus(BusChannel, Protocol):
    """The bus stub, as execution drives it."""

    def begin(self, parent_id: str | None, handler: str) -> None:
        """A message begins: what is buffered is forgotten."""
        ...

    def take(self) -> tuple[Outgoing, ...]:
        """What the handler published; clears the buffer."""
        ...


class MessageChannel(DatabaseChannel, Protocol):
    """The database channel's stub, as execution drives it."""

    def reset(self) -> None:
        """A transaction that was left open is rolled back."""
        ...


class PhaseNotes(Protocol):
    """Where phases are noted: the flight recorder, or nowhere in a test."""

    def enter(self, phase: Phase) -> None:
        """Note the phase."""
        ...


class Executor:
    """Runs deliveries through handlers, one at a time."""

    def __init__(
        self,
        *,
        slot: str,
        body_bytes: int,
        database: MessageDatabase,
        bus: MessageBus,
        db: MessageChannel,
        state: SimpleNamespace,
        deadline: SoftDeadline,
        recorder: PhaseNotes,
    ) -> None:
        self._slot = slot
        self._body_bytes = body_bytes
        self._handlers: Sequence[AnyHandler] = ()
        self._decoders: Sequence[Decoder] = ()
        self._database = database
        self._bus = bus
        self._db = db
        self._state = state
        self._deadline = deadline
        self._recorder = recorder
        self._job: Job | None = None
        self._began_s = 0.0
        self._is_conflict = False
        self._random = Random()
        self._log: FilteringBoundLogger = structlog.get_logger("penstock.database")
        # With the job that they are of: a thread that the handler left behind may log while the next one begins.
        self._fields: tuple[Job | None, Mapping[str, Any]] = (None, {"slot": slot})

    def serve(self, handlers: Sequence[AnyHandler]) -> None:
        """These handlers, to which jobs refer by their place; raises `HandlerError` for one that cannot be served."""
        self._decoders = [Decoder(handler, body_bytes=self._body_bytes) for handler in handlers]
        self._handlers = handlers

    def run(self, job: Job) -> Outcome:
        """Decode, handle, commit, again after a conflict; returns how it ended and never raises."""
        self._job = job
        handler = self._handlers[job.handler]
        self._began_s = time.monotonic()
        for rerun in itertools.count(1):
            try:
                # Anew for each run: what the last one did to its payload is undone, too.
                payload = self._decoders[job.handler].decode(job.body, job.content_type, job.content_encoding)
            except PayloadError as error:
                return Unreadable(error.reason)
            except BaseException as error:  # noqa: BLE001 - a validator of the author's may raise anything
                return Unreadable(
                    f"the body could not be decoded: {type(error).__name__}: {error}", failure_of(error)
                )
            outcome = self._once(handler, payload, job)
            if not self._is_conflict or not isinstance(outcome, Raised):
                return outcome
            wait_s = wait_before_rerun(rerun, left_s=self._left_s(handler), random=self._random)
            if wait_s is None:
                return outcome
            self._log.info(
                "another transaction was in the way; the handler runs again",
                error=outcome.failure.text.partition("\n")[0], rerun=rerun,
            )  # fmt: skip
            self._recorder.enter(Phase.DECODING)
            time.sleep(wait_s)
        raise AssertionError  # count() has no end

    def _once(self, handler: AnyHandler, payload: Any, job: Job) -> Outcome:
        self._is_conflict = False
        self._bus.begin(job.message_id, handler.name)
        self._recorder.enter(Phase.HANDLER)
        is_committing = False
        try:
            self._database.begin(handler.name, handler.options.isolation)
            running_database.set(self._database.current)
            self._handle(handler, payload, job)
            if self._database.in_transaction:
                self._recorder.enter(Phase.COMMITTING)
                is_committing = True
                self._database.commit()
            published = self._bus.take()
        except BaseException as error:  # noqa: BLE001 - SystemExit included, see the module's text
            self._bus.take()
            self._database.rollback()
            return self._outcome_of(error, is_committing=is_committing)
        finally:
            running_database.set(None)
            self._db.reset()
        return Returned(published) if published else DONE

    def _left_s(self, handler: AnyHandler) -> float | None:
        timeout_s = handler.options.timeout_s
        return None if timeout_s is None else timeout_s - (time.monotonic() - self._began_s)

    def note_wait(self, waited_s: float) -> None:
        """The running delivery waited for so long for what is nobody's fault; its handler's time is not spent on that."""
        self._began_s += waited_s

    def fields(self) -> Mapping[str, Any]:
        """What every log line says of the slot and of the running delivery; made once a delivery, at its first line."""
        job = self._job
        fields = self._fields
        if fields[0] is not job:
            fields = self._fields = (job, self._bound(job))
        return fields[1]

    def rest(self) -> None:
        """No delivery is running."""
        self._job = None

    def _bound(self, job: Job | None) -> Mapping[str, Any]:
        if job is None:
            return {"slot": self._slot}
        handler = self._handlers[job.handler]
        return {
            "slot": self._slot,
            "message_id": job.message_id,
            "queue": handler.queue.name,
            "handler": handler.name,
            "attempt": job.attempt,
        }

    def _handle(self, handler: AnyHandler, payload: Any, job: Job) -> None:
        timeout_s = handler.options.timeout_s
        pid = os.getpid()
        if timeout_s is not None:
            # The time is for all runs together: the reactor's hard deadline counts from the first.
            self._deadline.arm(timeout_s, spent_s=time.monotonic() - self._began_s)
        try:
            if handler.wants_context:
                returned = handler.function(payload, self._context(handler, job))
            else:
                returned = handler.function(payload)
            if inspect.iscoroutine(returned):
                returned.close()
                raise HandlerError(
                    f"handler {handler.name} returned a coroutine that nobody awaits, so nothing was done; write async def"
                )
        finally:
            if os.getpid() != pid:
                _end_forked(handler.name)
            if timeout_s is not None:
                self._deadline.disarm()

    def _context(self, handler: AnyHandler, job: Job) -> Context:
        return Context(
            message_info(handler, job),
            bus=self._bus,
            db=self._db,
            database=self._database,
            state=self._state,
            log=structlog.get_logger(handler.name),
        )

    def _outcome_of(self, error: BaseException, *, is_committing: bool) -> Outcome:
        is_lost = self._database.is_lost(error)
        self._is_conflict = not is_lost and self._database.is_conflict(error)
        faultless = (
            isinstance(error, ChannelClosed | DatabaseBusy) or is_lost or self._database.is_busy(error)
        )
        return outcome_of(
            error,
            charged=not faultless,
            commit_unknown=is_committing and is_lost,
            lost_amid=isinstance(error, DatabaseLost) or self._database.is_lost_amid(error),
        )


def _end_forked(handler: str) -> NoReturn:
    """In a process that the handler forked: it would commit, answer and go on as a second worker on the same sockets."""
    words = (
        f"penstock: handler {handler} forked, and its child came back from the handler: the child is ended, and its message is "
        "the parent's alone. End it inside the handler with os._exit(), or use subprocess\n"
    )
    with suppress(OSError):
        # No line of the log: the channel is the parent's.
        os.write(2, words.encode())
    os._exit(FORKED_EXIT_CODE)
