"""What SQLAlchemy's suite may ask of PostgreSQL, and what the channel leaves out, with the reason.

What is missing is missing on the plain driver too; everything else that the suite knows is asked of both.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = ("postgresql",)
NO_TEMPORARY: Final = (
    "a temporary table ends with the transaction that made it, whose connection goes to somebody else"
)
NO_SEARCH_PATH: Final = (
    "search_path would be set on one of the loop's connections, and the next transaction has another"
)
NO_TWO_PHASE: Final = "a prepared transaction outlives the connection that the loop lends for it"
#: What the suite asks for, and PostgreSQL with its plain driver has not.
MISSING: Final = {
    "async_dialect": "neither is asynchronous",
    "asyncio": "neither is asynchronous",
    "computed_columns": "SQLAlchemy warns that this version stores them",
    "computed_columns_default_persisted": "this version stores them only",
    "computed_columns_virtual": "this version stores them only",
    "dbapi_lastrowid": "PostgreSQL has RETURNING",
    "denormalized_names": "names are written as they are",
    "emulated_lastrowid": "PostgreSQL has RETURNING",
    "emulated_lastrowid_even_with_sequences": "PostgreSQL has RETURNING",
    "fetch_percent": "PostgreSQL has none",
    "foreign_keys_reflect_as_index": "PostgreSQL makes none for them",
    "json_deserializer_binary": "JSON comes as text",
    "materialized_views_reflect_pk": "they have no keys",
    "nvarchar_types": "PostgreSQL has none",
    "reflect_indexes_with_ascdesc_as_expression": "PostgreSQL tells a direction as such",
    "repeated_remote_col_foreign_keys": "PostgreSQL refuses a column twice in a key",
    "unique_index_reflect_as_unique_constraints": "PostgreSQL tells them apart",
}
#: What the plain driver does and the channel leaves out.
NOT_OVER_CHANNEL: Final = {
    "default_schema_name_switch": NO_SEARCH_PATH,
    "two_phase_transactions": NO_TWO_PHASE,
    "has_temp_table": NO_TEMPORARY,
    "temp_table_names": NO_TEMPORARY,
    "temp_table_reflection": NO_TEMPORARY,
    "temporary_views": NO_TEMPORARY,
}
#: Test classes that are not even collected without one of these.
UNCOLLECTED: Final = {
    "FutureWeCanSetDefaultSchemaWEventsTest": NO_SEARCH_PATH,
    "WeCanSetDefaultSchemaWEventsTest": NO_SEARCH_PATH,
    "TempTableElementsTest": NO_TEMPORARY,
}
#: Tests that the suite gives no requirement of their own, by their names.
LEFT_OUT: Final[dict[str, str]] = {}
