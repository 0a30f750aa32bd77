from __future__ import annotations

import pytest

from penstock.proxy.statements import Kind, inserts, kind_of, vacuums


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select 1", Kind.READS),
        ("  -- why\n /* and\n how */ SELECT 1", Kind.READS),
        ("WITH x AS (SELECT 1) SELECT * FROM x", Kind.READS),
        ("VALUES (1)", Kind.READS),
        ("PRAGMA table_info(t)", Kind.READS),
        ("explain delete from t", Kind.READS),
        ("insert into t values (1)", Kind.CHANGES),
        ("REPLACE INTO t VALUES (1)", Kind.CHANGES),
        ("Update t set x = 1", Kind.CHANGES),
        ("begin immediate", Kind.BEGINS),
        ("COMMIT", Kind.COMMITS),
        ("end transaction", Kind.COMMITS),
        ("ROLLBACK", Kind.ROLLS_BACK),
        ("rollback transaction", Kind.ROLLS_BACK),
        ("rollback to here", Kind.SAVES),
        ("rollback transaction to savepoint here", Kind.SAVES),
        ("savepoint here", Kind.SAVES),
        ("release here", Kind.SAVES),
        ("create table t (x)", Kind.OTHER),
        ("vacuum", Kind.OTHER),
        ("", Kind.OTHER),
        ("; ;", Kind.OTHER),
        ("(", Kind.OTHER),
        ("/* never closed", Kind.OTHER),
    ],
)
def test_a_statement_s_kind_is_told_by_its_first_words(sql: str, kind: Kind) -> None:
    assert kind_of(sql) is kind


def test_an_insert_may_name_its_row_and_an_update_may_not() -> None:
    assert inserts("-- x\ninsert into t values (1)")
    assert not inserts("update t set x = 1")


def test_a_vacuum_in_place_is_told_from_a_copy() -> None:
    assert vacuums("vacuum; -- tidy")
    assert not vacuums("VACUUM INTO 'x'")
    assert not vacuums("vacuum main into 'x'")
    assert not vacuums("")


def test_a_long_text_of_comments_is_read_in_linear_time() -> None:
    assert kind_of("/*" * 100_000) is Kind.OTHER
    assert kind_of("--\n" * 100_000 + "select 1") is Kind.READS
