"""What a command says on stderr: words, never a password, and a traceback only for what nobody expected."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from typing import Final, ParamSpec

import typer

from penstock.cli.exits import Exit, exit_of
from penstock.cli.secrets import Secrets
from penstock.errors import PenstockError

P = ParamSpec("P")

#: Passwords of the settings that this process has loaded; `penstock.cli.options` adds to it.
secrets: Final = Secrets()


def say(text: str) -> None:
    """One line or more on stderr, without passwords; a stderr that is closed is no error."""
    try:
        sys.stderr.write(secrets.hide(text) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        # Closed, its reader gone, or None: there is nobody to tell, and the exit code still says it.
        return


def fail(text: str) -> None:
    """As `say`, under the program's name."""
    say(f"penstock: {text}")


def command(function: Callable[P, Exit]) -> Callable[P, None]:
    """A typer command that ends the process with the returned code, or in words with the code of what was raised."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from penstock.cli.quiet import log_warnings_only

        log_warnings_only()
        try:
            code = function(*args, **kwargs)
        except PenstockError as error:
            fail(str(error))
            code = exit_of(error)
        except KeyboardInterrupt:
            fail("interrupted")
            code = Exit.INTERRUPTED
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except typer.TyperException:
            raise
        except Exception:  # noqa: BLE001 - the last place before the interpreter, which would show passwords
            say(traceback.format_exc())
            fail("this error was not expected: the lines above say where it happened; please report them")
            code = Exit.NO
        raise typer.Exit(code)

    # typer reads the signature, and what it returns is nobody's result.
    run.__annotations__ = {**function.__annotations__, "return": None}
    return run
