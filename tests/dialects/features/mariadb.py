"""What SQLAlchemy's suite may ask of MariaDB, and what the channel leaves out, with the reason.

What is missing is missing on the plain driver too; everything else that the suite knows is asked of both.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = ("mysql", "mariadb")
NO_TEMPORARY: Final = (
    "a temporary table ends with the transaction that made it, whose connection goes to somebody else"
)
#: What the suite asks for, and MariaDB with its plain driver has not.
MISSING: Final = {
    "array_type": "MariaDB has no arrays",
    "async_dialect": "neither is asynchronous",
    "asyncio": "neither is asynchronous",
    "column_collation_reflection": "the suite's column has no length",
    "comment_reflection_full_unicode": "MariaDB keeps comments in utf8mb3",
    "computed_columns_default_persisted": "columns are virtual by default",
    "ctes_on_dml": "MariaDB's grammar has no WITH there",
    "ctes_with_update_delete": "MariaDB's grammar has no WITH there",
    "date_historic": "a year before 1000 is not promised",
    "date_implicit_bound": "a value without a type comes back as text",
    "datetime_historic": "a year before 1000 is not promised",
    "datetime_implicit_bound": "a value without a type comes back as text",
    "datetime_interval": "MariaDB has no type for it",
    "datetime_literals": "a value without a type comes back as text",
    "datetime_microseconds": "DATETIME and TIME have whole seconds unless fsp is said",
    "datetime_timezone": "MariaDB's times have no zone",
    "datetime_timezone_historic": "MariaDB's times have no zone",
    "default_schema_name_switch": "SQLAlchemy knows no such switch for MariaDB",
    "denormalized_names": "names are written as they are",
    "fetch_expression": "MariaDB's dialect has LIMIT only",
    "fetch_first": "MariaDB's dialect has LIMIT only",
    "fetch_no_order_by": "MariaDB's dialect has LIMIT only",
    "fetch_offset_with_options": "MariaDB's dialect has LIMIT only",
    "fetch_percent": "MariaDB's dialect has LIMIT only",
    "fetch_ties": "MariaDB's dialect has LIMIT only",
    "fk_constraint_option_reflection_ondelete_restrict": "RESTRICT is what MariaDB does anyway, and does not tell",
    "fk_constraint_option_reflection_onupdate_restrict": "RESTRICT is what MariaDB does anyway, and does not tell",
    "float_or_double_precision_behaves_generically": "FLOAT(p, s) is another type there",
    "has_temp_table": "MariaDB does not list temporary tables",
    "identity_columns": "MariaDB has AUTO_INCREMENT instead",
    "identity_columns_standard": "MariaDB has AUTO_INCREMENT instead",
    "index_reflects_included_columns": "MariaDB has no INCLUDE",
    "indexes_with_expressions": "MariaDB indexes columns only",
    "infinity_floats": "MariaDB has no infinity",
    "inline_check_constraint_reflection": "MariaDB gives them names",
    "json_deserializer_binary": "JSON comes as text",
    "materialized_views": "MariaDB has none",
    "materialized_views_reflect_pk": "MariaDB has none",
    "non_updating_cascade": "MariaDB cascades updates",
    "precision_generic_float_type": "FLOAT rounds",
    "reflect_indexes_with_ascdesc_as_expression": "MariaDB indexes columns only",
    "reflect_indexes_with_expressions": "MariaDB indexes columns only",
    "reflect_tables_no_columns": "MariaDB has no such tables",
    "reflects_pk_names": "a primary key is called PRIMARY",
    "repeated_column_foreign_keys": "MariaDB refuses a column twice in a key",
    "repeated_remote_col_foreign_keys": "MariaDB refuses a column twice in a key",
    "sql_expression_limit_offset": "LIMIT takes numbers only",
    "supports_bitwise_not": "MariaDB's integers have 64 bits and no sign there",
    "supports_distinct_on": "DISTINCT ON is PostgreSQL's",
    "table_value_constructor": "MariaDB's grammar has none",
    "temp_table_names": "MariaDB does not list temporary tables",
    "temporary_views": "MariaDB has none",
    "time_implicit_bound": "a value without a type comes back as text",
    "time_microseconds": "DATETIME and TIME have whole seconds unless fsp is said",
    "time_timezone": "MariaDB's times have no zone",
    "timestamp_microseconds": "DATETIME and TIME have whole seconds unless fsp is said",
    "unbounded_varchar": "VARCHAR needs a length",
    "window_range_non_numeric": "RANGE takes numbers only",
}
#: What the plain driver does and the channel leaves out.
NOT_OVER_CHANNEL: Final = {
    "temp_table_reflection": NO_TEMPORARY,
}
#: Test classes that are not even collected without one of these.
UNCOLLECTED: Final = {
    "TempTableElementsTest": NO_TEMPORARY,
}
#: Tests that the suite gives no requirement of their own, by their names.
LEFT_OUT: Final[dict[str, str]] = {}
