"""What SQLAlchemy's suite may ask of SQLite, and what the channel leaves out, with the reason.

What is said of SQLite holds for the plain driver and the channel.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = ("sqlite",)
NO_SECOND_FILE = "a second schema of SQLite is an attached file; the channel leads to one file"
NO_TEMPORARY = "a temporary table belongs to one connection; the loop's connections are shared by all workers"
NO_FUNCTIONS = "REGEXP is a Python function of the driver's dialect; a pattern that takes for ever would hold up the loop"
#: Of the plain driver, too, once it enforces foreign keys, as Penstock does everywhere.
KEYS_ENFORCED = (
    "the suite's foreign key refers to a column that is not unique, which SQLite refuses with foreign_keys=ON"
)
#: What SQLite can do, and the suite does not assume.
OFFERED: Final = [
    "autocommit",
    "boolean_col_expressions",
    "check_constraint_reflection",
    "computed_columns",
    "computed_columns_reflect_persisted",
    "computed_columns_stored",
    "computed_columns_virtual",
    "create_table_as",
    "create_temp_table_as",
    "ctes",
    "ctes_with_values",
    "date_historic",
    "datetime_historic",
    "datetime_literals",
    "dbapi_lastrowid",
    "emulated_lastrowid",
    "emulated_lastrowid_even_with_sequences",
    "except_",
    "expression_server_defaults",
    "fetch_expression",
    "fetch_offset_with_options",
    "fk_constraint_option_reflection_ondelete_noaction",
    "fk_constraint_option_reflection_ondelete_restrict",
    "fk_constraint_option_reflection_onupdate_restrict",
    "float_or_double_precision_behaves_generically",
    "foreign_key_constraint_name_reflection",
    "foreign_key_constraint_option_reflection_ondelete",
    "foreign_key_constraint_option_reflection_onupdate",
    "index_ddl_if_exists",
    "indexes_check_column_order",
    "indexes_with_expressions",
    "infinity_floats",
    "inline_check_constraint_reflection",
    "intersect",
    "isolation_level",
    "json_array_indexes",
    "json_type",
    "legacy_unconditional_json_extract",
    "mod_operator_as_percent_sign",
    "non_updating_cascade",
    "nullsordering",
    "nvarchar_types",
    "order_by_collation",
    "order_by_label_with_expression",
    "percent_schema_names",
    "precision_numerics_enotation_small",
    "precision_numerics_retains_significant_digits",
    "reflect_table_options",
    "reflects_pk_names",
    "regexp_match",
    "repeated_column_foreign_keys",
    "server_defaults",
    "skip_autocommit_rollback",
    "supports_bitwise_and",
    "supports_bitwise_not",
    "supports_bitwise_or",
    "supports_bitwise_shift",
    "supports_bitwise_xor",
    "table_ddl_if_exists",
    "tuple_in",
    "tuple_in_w_empty",
    "update_from",
    "view_column_reflection",
    "view_reflection",
    "views",
    "window_functions",
    "window_range",
    "window_range_numeric",
]
#: What the suite assumes, and SQLite or its plain driver has not.
MISSING: Final = {
    "foreign_keys": "the plain driver does not enforce them",
    "on_update_cascade": "the plain driver does not enforce foreign keys",
    "on_update_or_deferrable_fks": "the plain driver does not enforce foreign keys",
    "implicitly_named_constraints": "SQLite gives constraints no names",
    "independent_connections": "a second writer waits for the first",
    "json_index_supplementary_unicode_element": "SQLite's JSON paths do not find it",
    "nested_aggregates": "SQLite has none",
    "numeric_received_as_decimal_untyped": "SQLite has no decimal type",
    "parens_in_union_contained_select_w_limit_offset": "SQLite's grammar has no such parentheses",
    "parens_in_union_contained_select_wo_limit_offset": "SQLite's grammar has no such parentheses",
    "temporary_tables": "the suite's temporary tables need one connection for all",
    "temp_table_reflection": "the suite's temporary tables need one connection for all",
    "temp_table_reflect_indexes": "the suite's temporary tables need one connection for all",
}
#: What the plain driver does and the channel leaves out.
NOT_OVER_CHANNEL: Final = {
    "schemas": NO_SECOND_FILE,
    "temporary_views": NO_TEMPORARY,
    "temp_table_names": NO_TEMPORARY,
    "has_temp_table": NO_TEMPORARY,
    "create_temp_table_as": NO_TEMPORARY,
    "regexp_match": NO_FUNCTIONS,
}
#: Test classes that are not even collected without a second schema.
UNCOLLECTED = {"SameNamedSchemaTableTest": NO_SECOND_FILE}
#: Tests that the suite gives no requirement of their own, by their names.
LEFT_OUT = {
    r"::test_check_constraint_\w+\[True-|::test_check_constraint_mixed\[True\]|::test_metadata\[True-": NO_SECOND_FILE,
    r"::test_check_constraint_no_constraint\[True\]|::test_metadata\[(?:True|False)-_exclusions_\d+-True\]": NO_SECOND_FILE,
    r"::test_get_temp_table_indexes": NO_TEMPORARY,
}
