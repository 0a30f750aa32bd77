"""What is known of the standard library: one row a module, class, function and import, and totals a package."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table

metadata = MetaData()

modules = Table(
    "demo_modules",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("package", String(255), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("lines", Integer, nullable=False),
    # Python's own tests keep files that no parser takes.
    Column("fault", String(255)),
)


def _parts(name: str, *columns: Column[str] | Column[int]) -> Table:
    module = Column("module_id", Integer, ForeignKey("demo_modules.id"), nullable=False, index=True)
    return Table(name, metadata, Column("id", Integer, primary_key=True), module, *columns)


classes = _parts(
    "demo_classes", Column("name", String(255), nullable=False), Column("line", Integer, nullable=False)
)
functions = _parts(
    "demo_functions",
    Column("name", String(255), nullable=False),
    Column("line", Integer, nullable=False),
    Column("arguments", Integer, nullable=False),
)
imports = _parts("demo_imports", Column("name", String(255), nullable=False))

packages = Table(
    "demo_packages",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("modules", Integer, nullable=False),
    Column("classes", Integer, nullable=False),
    Column("functions", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
)
#: Modules that are in the totals: a message that comes twice is counted once.
counted = Table("demo_counted", metadata, Column("module", String(255), primary_key=True))
