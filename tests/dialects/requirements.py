"""What SQLAlchemy's suite may ask for: its own list for each database, and what the channel leaves out, with the reason."""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import exclusions as untyped

from tests.dialects.sqlalchemy_requirements import DefaultRequirements

exclusions: Any = untyped
CHANNEL = "sqlite+penstock"
NO_SECOND_FILE = "a second schema of SQLite is an attached file; the channel leads to one file"
NO_TEMPORARY = "a temporary table belongs to one connection; the loop's connections are shared by all workers"
NO_FUNCTIONS = "REGEXP is a Python function of the driver's dialect; a pattern that takes for ever would hold up the loop"
#: Of the plain driver too, once it enforces foreign keys, as Penstock does everywhere.
KEYS_ENFORCED = (
    "the suite's foreign key refers to a column that is not unique, which SQLite refuses with foreign_keys=ON"
)
#: Test classes that are not even collected without a second schema.
UNCOLLECTED = {"SameNamedSchemaTableTest": NO_SECOND_FILE}
#: Tests that the suite gives no requirement of their own, by their names.
LEFT_OUT = {
    r"::test_check_constraint_\w+\[True-|::test_check_constraint_mixed\[True\]|::test_metadata\[True-": NO_SECOND_FILE,
    r"::test_check_constraint_no_constraint\[True\]|::test_metadata\[(?:True|False)-_exclusions_\d+-True\]": NO_SECOND_FILE,
    r"::test_get_temp_table_indexes": NO_TEMPORARY,
}


def _over_channel(property_name: str, reason: str) -> property:
    def leave_out(self: Requirements) -> Any:
        theirs = getattr(super(Requirements, self), property_name)
        return theirs + exclusions.skip_if(CHANNEL, reason)

    return property(leave_out)


class Requirements(DefaultRequirements):
    """The same for the plain driver and for the channel, but for these."""

    schemas = _over_channel("schemas", NO_SECOND_FILE)
    temporary_tables = _over_channel("temporary_tables", NO_TEMPORARY)
    temp_table_names = _over_channel("temp_table_names", NO_TEMPORARY)
    temporary_views = _over_channel("temporary_views", NO_TEMPORARY)
    has_temp_table = _over_channel("has_temp_table", NO_TEMPORARY)
    create_temp_table_as = _over_channel("create_temp_table_as", NO_TEMPORARY)
    regexp_match = _over_channel("regexp_match", NO_FUNCTIONS)

    @property
    def unicode_ddl(self) -> Any:
        """For both: the suite runs the plain driver without foreign keys."""
        return super().unicode_ddl + exclusions.skip_if("sqlite", KEYS_ENFORCED)

    @property
    def dbapi_lastrowid(self) -> Any:
        """SQLAlchemy's list names drivers."""
        return exclusions.only_on(["mysql", "mariadb", "sqlite", "mssql"])

    @property
    def emulated_lastrowid(self) -> Any:
        """SQLAlchemy's list names drivers."""
        return exclusions.fails_on_everything_except("mysql", "mariadb", "sqlite", "mssql")

    @property
    def reflect_table_options(self) -> Any:
        """For both: SQLAlchemy's list is of a version whose SQLite dialect reflected no options yet."""
        return exclusions.succeeds_if(["sqlite", "mysql", "mariadb", "oracle", "postgresql"])
