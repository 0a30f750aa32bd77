"""The command line; this file is the console script, and stays light."""

from __future__ import annotations

import os
import sys

#: Commands that run a reactor: a stop request means a drain to them.
_DRAINING = ("run", "demo")


def main() -> int:
    """Run the command that `sys.argv` names; the process ends with a code of `penstock.cli.exits`."""
    _open_closed_streams()
    if sys.argv[1:2] and sys.argv[1] in _DRAINING:
        # Before anything heavy: a stop request that comes during the imports must not be lost.
        from penstock.cli.signals import stops

        stops.remember()
    from penstock.cli.commands import app

    app()
    return 0


def _open_closed_streams() -> None:
    """Put /dev/null where a parent closed stdin, stdout or stderr.

    The next file or socket would get the free number, and lines of the log would be written into it.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open
