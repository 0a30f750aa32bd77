"""What SQLAlchemy's suite may ask for: what each database can do, and what the channel leaves out; `features/` has the reasons."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy.testing import exclusions as untyped
from sqlalchemy.testing.requirements import SuiteRequirements

from tests.dialects.features import mariadb, postgresql, sqlite

exclusions: Any = untyped
#: As the suite says that it does not assume something.
_UNASSUMED: Final = vars(exclusions.closed().skips.copy().pop())
_DEFAULTS: Final = {"sqlite": "SERIALIZABLE", "postgresql": "READ COMMITTED", "mariadb": "REPEATABLE READ"}
_COLLATIONS: Final = {"sqlite": "NOCASE", "postgresql": "POSIX", "mariadb": "utf8mb4_bin"}


class Requirements(SuiteRequirements):
    """SQLAlchemy asks for one attribute a feature."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not isinstance(found, exclusions.compound):
            return found
        if any(vars(skip) == _UNASSUMED for skip in found.skips):
            # Open for servers; of SQLite it is written down what it can do.
            found = exclusions.open()
            if name not in sqlite.OFFERED:
                found += exclusions.skip_if("sqlite", "SQLite has not, or is not asked")
        for database in (sqlite, mariadb, postgresql):
            if name in database.MISSING:
                found += exclusions.skip_if(list(database.NAMES), database.MISSING[name])
            if name in database.NOT_OVER_CHANNEL:
                channels = [f"{dialect}+penstock" for dialect in database.NAMES]
                found += exclusions.skip_if(channels, database.NOT_OVER_CHANNEL[name])
        return found

    @property
    def unicode_ddl(self) -> Any:
        """For both: the suite runs the plain driver without foreign keys."""
        return exclusions.skip_if("sqlite", sqlite.KEYS_ENFORCED)

    def get_isolation_levels(self, config: Any) -> dict[str, object]:
        """The database's, and which of them is in force when nobody says."""
        dialect = config.db.dialect
        return {
            "default": _DEFAULTS[dialect.name],
            "supported": list(dialect.get_isolation_level_values(None)),
        }

    def get_order_by_collation(self, config: Any) -> str:
        """One that orders other than the default does."""
        return _COLLATIONS[config.db.dialect.name]
