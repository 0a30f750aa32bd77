"""The commands and their flags; what they do lies in a file each, loaded when it is wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from penstock.cli import exits, options
from penstock.cli.dead_commands import dead
from penstock.cli.exits import Exit
from penstock.cli.words import command

app = typer.Typer(
    name="penstock",
    help="Messages from RabbitMQ, or from a file, into plain Python handlers in worker processes.",
    epilog=exits.HELP,
    no_args_is_help=True,
    # Its tracebacks print values; those may be passwords.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dead, name="dead")

Address = Annotated[
    str,
    typer.Argument(metavar="MODULE:APP", help="Where the App is; :app may be left out.", show_default=False),
]


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        from importlib.metadata import version

        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def penstock(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Messages from RabbitMQ, or from a file, into plain Python handlers in worker processes."""


@app.command()
@command
def run(
    address: Address,
    *,
    bus: options.BusFlag = None,
    database: options.DatabaseFlag = None,
    processes: options.ProcessesFlag = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Serve the queues that match, such as 'orders.*'; may be repeated.",
            show_default="all",
        ),
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="Run handlers in this process, for a debugger.")
    ] = False,
    drain_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0, help="How long a stop waits for handlers that run.", show_default="30"
        ),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(help="Least severe line that is written.", show_default="info"),
    ] = None,
    log_format: Annotated[
        Literal["auto", "console", "json"] | None,
        typer.Option(help="auto: console on a terminal, JSON lines otherwise.", show_default="auto"),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Answer /live, /ready and /metrics on this port of 127.0.0.1.",
            show_default="off",
        ),
    ] = None,
    loop: Annotated[
        Literal["auto", "asyncio", "uvloop"],
        typer.Option(help="The event loop; auto takes uvloop where it is installed."),
    ] = "auto",
) -> Exit:
    """Consume, and run the application's handlers until SIGTERM or Ctrl-C; then drain. A second signal hurries."""
    from penstock.cli.run import run_service

    options.make_importable()
    settings = options.settings_from(
        bus=bus,
        database=database,
        workers={"processes": processes},
        service={"drain_seconds": drain_seconds, "log_level": log_level, "log_format": log_format},
        http={"port": http_port},
    )
    return run_service(address, settings, only=tuple(only or ()), inline=inline, loop=loop)


@app.command()
@command
def publish(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUEUE] [PAYLOAD]",
            help="The queue (left out with --exchange) and the payload as JSON text; - reads it from stdin.",
            show_default=False,
        ),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Publish a file with one JSON document a line; - is stdin.",
            show_default=False,
        ),
    ] = None,
    from_line: Annotated[
        int, typer.Option(metavar="N", min=1, help="With --file: begin with this line.")
    ] = 1,
    id: Annotated[  # noqa: A002 - the public word
        str | None,
        typer.Option(
            metavar="ID",
            help="The message's id, which makes a repeat recognisable; with --file each id is ID-LINE.",
            show_default="random",
        ),
    ] = None,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A header; may be repeated.", show_default=False),
    ] = None,
    exchange: Annotated[
        str | None, typer.Option(metavar="NAME", help="Publish to an exchange.", show_default=False)
    ] = None,
    routing_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="With --exchange.", show_default=False)
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=0, help="It reaches its queue so many seconds later.", show_default=False
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The payload is text, not JSON.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", min=0, help="Longest wait for a publisher confirm.", show_default="30"),
    ] = None,
    bus: options.BusFlag = None,
) -> Exit:
    """Publish one message, or a file of them, and wait until the bus has confirmed each."""
    from penstock.cli import publish as publishing

    settings = options.settings_from(bus=bus, confirm_timeout_s=timeout)
    request = publishing.Request.from_words(
        words or [],
        file=file,
        from_line=from_line,
        id=id,
        headers=header or [],
        exchange=exchange,
        routing_key=routing_key,
        delay_s=delay,
        is_raw=raw,
    )
    return publishing.publish(request, settings)


@app.command()
@command
def check(
    address: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:APP", help="Where the App is; may be left out with --live.", show_default=False
        ),
    ] = None,
    *,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Check the queues that match.", show_default="all"),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Say whether the running service is live; for health checks.")
    ] = False,
    ready: Annotated[bool, typer.Option("--ready", help="As --live, and it has to be consuming.")] = False,
    bus: options.BusFlag = None,
    database: options.DatabaseFlag = None,
) -> Exit:
    """Settings, topology, bus and database in words; changes nothing, and ends with the code that `run` would end with."""
    if live or ready:
        from penstock.cli.live import check_live

        return check_live(address, options.settings_from(), wants_ready=ready)
    if address is None:
        raise typer.BadParameter("name the application, such as orders:app", param_hint="MODULE:APP")
    from penstock.cli.check import check_application

    options.make_importable()
    settings = options.settings_from(bus=bus, database=database)
    return check_application(address, settings, only=tuple(only or ()))


@app.command()
@command
def demo(
    *,
    bus: options.BusFlag = None,
    database: options.DatabaseFlag = None,
    processes: options.ProcessesFlag = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep what earlier demos left, their folders and dead letters, too."),
    ] = False,
) -> Exit:
    """The main job on real input: every module of the standard library, parsed in workers, indexed in SQLite."""
    from penstock.cli.demo import run_demo

    return run_demo(bus=bus, database=database, processes=processes, keeps_earlier=keep)
