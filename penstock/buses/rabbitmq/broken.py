"""What comes up when a connection or an AMQP channel breaks under a call, as errors and never as a cancellation.

aiormq cancels the calls that wait on what it closes. To them that looks as if they were being cancelled themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiormq.exceptions import AMQPConnectionError, AMQPError

#: `RuntimeError` is aiormq's for a channel that is closing.
BROKEN: Final = (AMQPError, OSError, RuntimeError, TimeoutError, asyncio.InvalidStateError)


@contextmanager
def broken_is_an_error() -> Iterator[None]:
    """Inside the block a call that aiormq cancelled raises `AMQPConnectionError`; our own cancellation passes.

    So does the end of the stream in the middle of a handshake, which aiormq raises as the end of an iteration.
    """
    try:
        yield
    except (StopAsyncIteration, EOFError) as error:
        msg = "the other side hung up"
        raise AMQPConnectionError(msg) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        msg = "what the call waited on was closed"
        raise AMQPConnectionError(msg) from error
