"""The check of an application: settings, handlers, bus and database, each in a table or in words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, SecretStr

from penstock.app.application import App
from penstock.app.decode import Decoder
from penstock.app.handlers import AnyHandler
from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.cli.check.database import look_at_database
from penstock.cli.check.findings import BusFindings, Problem
from penstock.cli.check.refusals import refusals_of_workers
from penstock.cli.exits import Exit
from penstock.cli.loading import load_application
from penstock.cli.secrets import HIDDEN, masked
from penstock.cli.shown import show_pairs, show_table, show_text
from penstock.cli.words import fail
from penstock.config import Settings
from penstock.errors import PenstockError
from penstock.reactor.prefetch import share_prefetch
from penstock.reactor.service import Reactor


def check_application(address: str, settings: Settings, *, only: Sequence[str]) -> Exit:
    """Show everything and return the code of the first problem, which is what `penstock run` would end with.

    Raises `HandlerError`, `ConfigurationError` when there is no application to check.
    """
    app = load_application(address)
    handlers = app.select(only)
    problems = _problems_of(app, address, settings, only)
    bus, bus_problems = asyncio.run(_look_at_bus(settings, [handler.queue for handler in handlers]))
    database, database_problems = _look_at_database(settings, handlers)
    problems += bus_problems + database_problems

    show_table("Settings", ("setting", "value", ""), list(_settings_rows(settings)))
    show_table(f"Handlers of {address}", _COLUMNS, _handler_rows(handlers, settings, bus), whole=("queue",))
    show_pairs("", [("Bus", bus.where), ("Database", database)])
    _show_permissions(bus)
    for problem in problems:
        fail(problem.words)
    if not problems:
        show_text(f"No problem was found: penstock run {address}")
        return Exit.OK
    show_text("1 problem was found." if len(problems) == 1 else f"{len(problems)} problems were found.")
    return problems[0].exit


def _problems_of(app: App, address: str, settings: Settings, only: Sequence[str]) -> list[Problem]:
    # Making them opens nothing, and refuses what could not run.
    problems = []
    try:
        Reactor(app, address, open_bus(settings.bus), settings, only=only)
    except PenstockError as error:
        problems.append(Problem.of(error))
    for handler in app.select(only):
        try:
            Decoder(handler, body_bytes=settings.limits.body_bytes)
        except PenstockError as error:
            if str(error) not in [problem.words for problem in problems]:
                problems.append(Problem.of(error))
    return problems


def _look_at_database(settings: Settings, handlers: Sequence[AnyHandler]) -> tuple[str, list[Problem]]:
    if refusals := refusals_of_workers(settings, handlers):
        return "the workers would not start with it", refusals
    return look_at_database(settings.database)


async def _look_at_bus(
    settings: Settings, queues: Sequence[QueueDeclaration]
) -> tuple[BusFindings, list[Problem]]:
    try:
        if settings.bus.is_embedded:
            from penstock.cli.check.embedded import look_at_file

            findings = look_at_file(settings.bus, queues)
        else:
            from penstock.cli.check.rabbitmq import look_at_broker

            findings = await look_at_broker(settings.bus, queues)
    except PenstockError as error:
        where = f"{masked(settings.bus.url.get_secret_value())} cannot be used"
        return BusFindings(where), [Problem.of(error)]
    return findings, findings.problems


def _settings_rows(settings: Settings) -> list[tuple[str, str, str]]:
    rows = []
    for name in type(settings).model_fields:
        section: BaseModel = getattr(settings, name)
        usual = type(section)()
        for field in type(section).model_fields:
            value = getattr(section, field)
            mark = "default" if value == getattr(usual, field) else "set"
            rows.append((f"{name}.{field}", _shown(value), mark))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        return masked(text) if "://" in text else HIDDEN
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


_COLUMNS = ("queue", "handler", "runs in", "type", "prefetch", "timeout", "attempts", "on the bus")


def _handler_rows(
    handlers: Sequence[AnyHandler], settings: Settings, bus: BusFindings
) -> list[tuple[str, ...]]:
    shares = share_prefetch(handlers, settings.bus.prefetch_total)
    return [
        (
            handler.queue.name,
            handler.name,
            "the loop" if handler.is_async else "a process",
            handler.queue.type if handler.queue.declare else "as it is",
            str(prefetch),
            "none" if handler.options.timeout_s is None else f"{handler.options.timeout_s:g} s",
            str(handler.options.retry.attempts),
            bus.queues.get(handler.queue.name, "not known"),
        )
        for handler, prefetch in zip(handlers, shares, strict=True)
    ]


def _show_permissions(bus: BusFindings) -> None:
    if bus.permissions:
        show_pairs("Broker permissions that this application needs", bus.permissions)
        show_text("\n".join(bus.commands) + "\n", title="They are granted by")
    if bus.creating:
        show_text("\n".join(bus.creating) + "\n", title="What is missing is created by")
