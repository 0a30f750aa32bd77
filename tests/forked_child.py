"""A forked child whose exit code tells whether its work went well."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


class Child:
    """Runs `work` in a fork of this process."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:  # noqa: BLE001 - a forked test must not go on as if it were pytest
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
