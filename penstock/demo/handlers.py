"""Two handlers: one parses files in the worker processes, one adds totals up on the event loop.

```
 files.found ─▶ index (a process; its own connection) ─▶ files.indexed ─▶ count (the loop; the database channel)
```
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Connection, Table, delete, insert, select

from penstock import App, AsyncContext, Backoff, Context
from penstock.demo import tables
from penstock.demo.parsing import Parsed, parse

#: On a broker, which others use as well, the demo's queues begin with this.
PREFIX: Final = "penstock-demo."

app = App()


class Found(BaseModel):
    """A source file and the name under which it is imported."""

    path: Path
    module: str


class Indexed(BaseModel):
    """What a module added to the index."""

    module: str
    classes: int
    functions: int
    lines: int


@app.handler("files.found", retry=Backoff(attempts=2, first_s=0.2))
def index(found: Found, ctx: Context) -> None:
    """Parse one file and put what it defines into the database, then say so."""
    parsed = parse(found.path.read_bytes(), found.module, is_package=found.path.name == "__init__.py")
    store(ctx.connection, found, parsed)
    # Leaves after the commit: whoever gets it finds the rows.
    ctx.bus.publish(
        ctx.message.queue.replace("found", "indexed"),
        Indexed(
            module=found.module,
            classes=len(parsed.classes),
            functions=len(parsed.functions),
            lines=parsed.lines,
        ),
    )


@app.handler("files.indexed")
async def count(event: Indexed, ctx: AsyncContext) -> None:
    """Add a module to the totals of its package, once, however often its message comes."""
    async with ctx.db.transaction() as tx:
        is_new = await tx.execute(
            "INSERT INTO demo_counted (module) VALUES (:module) ON CONFLICT DO NOTHING",
            {"module": event.module},
        )
        if is_new:
            await tx.execute(
                "INSERT INTO demo_packages (name, modules, classes, functions, lines) "
                "VALUES (:name, 1, :classes, :functions, :lines) ON CONFLICT (name) DO UPDATE SET "
                "modules = modules + 1, classes = classes + excluded.classes, "
                "functions = functions + excluded.functions, lines = lines + excluded.lines",
                {
                    "name": package_of(event.module),
                    "classes": event.classes,
                    "functions": event.functions,
                    "lines": event.lines,
                },
            )


def store(connection: Connection, found: Found, parsed: Parsed) -> None:
    """Write the rows of one module in place of those that an earlier run has left: a message may come twice."""
    earlier = select(tables.modules.c.id).where(tables.modules.c.name == found.module)
    for table in (tables.classes, tables.functions, tables.imports):
        connection.execute(delete(table).where(table.c.module_id.in_(earlier)))
    connection.execute(delete(tables.modules).where(tables.modules.c.name == found.module))
    module = insert(tables.modules).values(
        name=found.module,
        package=package_of(found.module),
        path=str(found.path),
        lines=parsed.lines,
        fault=parsed.fault,
    )
    key = connection.execute(module).inserted_primary_key
    module_id = None if key is None else key[0]
    _insert_all(
        connection,
        tables.classes,
        [{"module_id": module_id, "name": n, "line": at} for n, at in parsed.classes],
    )
    _insert_all(
        connection,
        tables.functions,
        [{"module_id": module_id, "name": n, "line": at, "arguments": a} for n, at, a in parsed.functions],
    )
    _insert_all(
        connection, tables.imports, [{"module_id": module_id, "name": n} for n in sorted(parsed.imports)]
    )


def _insert_all(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def package_of(module: str) -> str:
    """The package that a module's totals go to: the first part of its name."""
    return module.partition(".")[0]


on_broker = App()
for handler in app.handlers:
    on_broker.handler(PREFIX + handler.queue.name, retry=handler.options.retry)(handler.function)
