"""The same on MariaDB by mysqlclient, which has to be compiled (scripts/databases does): skipped where it is not."""

from __future__ import annotations

import pytest

pytest.importorskip("MySQLdb", reason="mysqlclient is not installed: scripts/databases says what it needs")

from tests.servers import Server
from tests.workers.databases import (
    test_conflicts,
    test_left,
    test_lost,
    test_settings,
    test_streams,
    test_too_long,
    test_transactions,
)
from tests.workers.databases.conftest import with_table
from tests.workers.databases.place import Place

#: Tests of the neighbours, which find the fixtures below.
globals().update(
    {
        test.__name__: test
        for test in (
            test_too_long.test_it_is_charged_to_its_message_alone,
            test_conflicts.test_a_deadlock_that_the_handler_swallows_commits_nothing_half,
            test_conflicts.test_the_loser_of_a_deadlock_runs_again_and_both_updates_are_there,
            test_lost.test_a_commit_whose_answer_is_lost_is_told_to_the_next_run,
            test_lost.test_a_connection_that_the_handler_closed_is_the_handlers_fault,
            test_lost.test_a_handler_that_catches_the_loss_is_not_charged_and_nothing_of_it_is_acked,
            test_lost.test_a_transaction_that_stood_still_for_too_long_is_not_charged,
            test_lost.test_an_idle_connection_that_the_server_timed_out_costs_no_attempt,
            test_lost.test_what_happens_between_two_messages_costs_no_attempt_at_all,
            test_lost.test_what_happens_inside_a_transaction_costs_one_run_of_one_message_and_charges_nobody,
            test_settings.test_a_connection_is_replaced_when_it_is_old,
            test_settings.test_a_handler_says_its_isolation_and_the_next_one_has_its_own,
            test_streams.test_a_stream_has_a_connection_of_its_own_and_the_workers_stays_free,
            test_streams.test_a_stream_reads_in_bounded_memory,
            test_streams.test_a_stream_that_is_left_open_ends_with_its_message,
            test_streams.test_whatever_else_is_done_while_a_streamed_result_is_open_raises_and_commits_nothing,
            test_transactions.test_an_error_inside_a_savepoint_costs_the_savepoint,
            test_transactions.test_connection_and_session_are_one_transaction,
            test_transactions.test_one_connection_serves_every_message_and_says_goodbye_at_the_end,
            test_transactions.test_the_server_counts_no_broken_connection_after_a_stop,
            test_left.test_a_ping_never_opens_another_connection,
            test_left.test_an_ordinary_statement_does_not_cost_the_connection,
            test_left.test_nor_what_could_not_be_asked_for,
            test_left.test_nor_what_it_does_to_mysqls_driver,
            test_left.test_what_a_handler_did_to_the_connection_does_not_last,
            test_left.test_what_is_less_plain_to_see_does_not_last_either,
            test_transactions.test_what_a_handler_wrote_is_committed_when_it_returns_and_undone_when_it_raises,
        )
    }
)


frugal_place = test_too_long.frugal_place


def by_mysqldb(server: Server, url: str) -> Place:
    return with_table(Place("mariadb", url.replace("mysql+pymysql", "mysql+mysqldb"), server))


@pytest.fixture
def place(mariadb: Server, mariadb_url: str) -> Place:
    return by_mysqldb(mariadb, mariadb_url)


@pytest.fixture
def mariadb_place(mariadb: Server, mariadb_url: str) -> Place:
    return by_mysqldb(mariadb, mariadb_url)


@pytest.fixture
def server_place(mariadb: Server, mariadb_url: str) -> Place:
    return by_mysqldb(mariadb, mariadb_url)


@pytest.fixture
def own_place(own_mariadb: Server) -> Place:
    return by_mysqldb(own_mariadb, own_mariadb.new_database())
