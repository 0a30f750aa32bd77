"""The commands of `penstock dead` and their flags; what they do lies in `penstock.cli.dead`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypedDict, Unpack

import typer

from penstock.cli import options
from penstock.cli.exits import Exit
from penstock.cli.words import command

if TYPE_CHECKING:
    from penstock.config import Settings
    from penstock.dead.choice import Choice

dead = typer.Typer(
    help="Look at dead letters, send them back to their queue, or drop them.", no_args_is_help=True
)

Queue = Annotated[
    str,
    typer.Argument(
        metavar="QUEUE", help="The handler's queue, or its dead-letter queue.", show_default=False
    ),
]
IdFlag = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Only the messages with this id.", show_default="all")
]
ReasonFlag = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", help="Only those whose reason contains this.", show_default=False
    ),
]
ExceptionFlag = Annotated[
    str | None,
    typer.Option(
        "--exception",
        metavar="TYPE",
        help="Only those with this exception, such as ValueError or 'sqlalchemy.*'.",
        show_default=False,
    ),
]
SinceFlag = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="TIME",
        help="Only those that failed last at this time or later: 30m, 2h, 7d (ago), or 2026-11-21T09:30 (UTC).",
        show_default=False,
    ),
]
UntilFlag = Annotated[
    str | None,
    typer.Option(
        "--until", metavar="TIME", help="Only those that failed last before it.", show_default=False
    ),
]
WhereFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="FIELD=VALUE",
        help="Only those whose payload says so, such as total=9.99 or customer.id=7; may be repeated.",
        show_default=False,
    ),
]
LimitFlag = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, help="Not more than so many, the oldest first.", show_default="all"
    ),
]


@dead.command("list")
@command
def dead_list(
    queue: Queue,
    *,
    id: IdFlag = None,  # noqa: A002
    reason: ReasonFlag = None,
    exception: ExceptionFlag = None,
    since: SinceFlag = None,
    until: UntilFlag = None,
    where: WhereFlag = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Show so many, the oldest first.")] = 50,
    bus: options.BusFlag = None,
) -> Exit:
    """List the dead letters of a queue: id, reason, exception, attempts, when."""
    from penstock.cli import dead as letters

    settings = options.settings_from(bus=bus)
    choice = _choice(
        settings, id=id, reason=reason, exception=exception, since=since, until=until, where=where
    )
    return letters.show_list(queue, settings, choice, limit=limit)


@dead.command("show")
@command
def dead_show(
    queue: Queue,
    id: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.", show_default=False)],  # noqa: A002
    *,
    body: Annotated[
        bool, typer.Option("--body", help="Write its body and nothing else, byte for byte.")
    ] = False,
    bus: options.BusFlag = None,
) -> Exit:
    """Show one dead letter: every header, the traceback or the dead worker's stack, its history, the body."""
    from penstock.cli import dead as letters

    return letters.show_one(queue, id, options.settings_from(bus=bus), body_only=body)


@dead.command("replay")
@command
def dead_replay(
    queue: Queue,
    *,
    id: IdFlag = None,  # noqa: A002
    reason: ReasonFlag = None,
    exception: ExceptionFlag = None,
    since: SinceFlag = None,
    until: UntilFlag = None,
    where: WhereFlag = None,
    limit: LimitFlag = None,
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="So many a second.", show_default="as fast as they go"),
    ] = None,
    bus: options.BusFlag = None,
) -> Exit:
    """Send dead letters back to the queue they came from, their attempts reset; all, or those that match.

    Interrupted, it loses nothing; the same command goes on.
    """
    from penstock.cli import dead as letters

    if rate is not None and not rate > 0:
        raise typer.BadParameter("--rate is a positive number of letters a second")
    settings = options.settings_from(bus=bus)
    choice = _choice(
        settings, id=id, reason=reason, exception=exception, since=since, until=until, where=where
    )
    return letters.replay(queue, settings, choice, rate=rate, limit=limit)


@dead.command("drop")
@command
def dead_drop(
    queue: Queue,
    *,
    id: IdFlag = None,  # noqa: A002
    reason: ReasonFlag = None,
    exception: ExceptionFlag = None,
    since: SinceFlag = None,
    until: UntilFlag = None,
    where: WhereFlag = None,
    limit: LimitFlag = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    bus: options.BusFlag = None,
) -> Exit:
    """Forget dead letters for good: those that match, or --all."""
    from penstock.cli import dead as letters

    settings = options.settings_from(bus=bus)
    choice = _choice(
        settings, id=id, reason=reason, exception=exception, since=since, until=until, where=where
    )
    if choice.is_everything != everything:
        raise typer.BadParameter("say which: --id ID or another filter, or --all")
    return letters.drop(queue, settings, choice, is_confirmed=yes, limit=limit)


class _Filters(TypedDict):
    id: str | None
    reason: str | None
    exception: str | None
    since: str | None
    until: str | None


def _choice(settings: Settings, *, where: list[str] | None, **filters: Unpack[_Filters]) -> Choice:
    from penstock.dead.choice import choose
    from penstock.errors import ConfigurationError

    wanted: dict[str, str] = {}
    for one in where or ():
        path, equals, value = one.partition("=")
        if not equals or not path or path in wanted:
            raise typer.BadParameter(
                f"--where {one!r}: write FIELD=VALUE, each field once, such as total=9.99"
            )
        wanted[path] = value
    try:
        return choose(where=wanted, body_bytes=settings.limits.body_bytes, **filters)
    except ConfigurationError as error:
        raise typer.BadParameter(f"--{error}") from error
