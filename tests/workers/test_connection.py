"""One transaction a message on the worker's own connection."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError, ConnectionMisused, DatabaseUnavailable
from penstock.workers.connection import OwnConnection
from tests.workers.own_connection import ITEMS, Item, Worker, names_in, somebody_else_on, worker_on


class OrderRefusedError(Exception):
    pass


def test_what_a_handler_wrote_is_committed_when_it_returns(worker: Worker, path: Path) -> None:
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    assert names_in(path) == ["cup"]


def test_what_a_handler_wrote_is_undone_when_it_raises(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        own.session.add(Item(name="plate"))
        own.session.flush()
        raise OrderRefusedError

    with pytest.raises(OrderRefusedError):
        worker.message(handler)
    assert names_in(path) == []


def test_all_messages_share_one_driver_connection(worker: Worker) -> None:
    first = worker.driver_connection()
    worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    worker.message(lambda own: own.session.scalars(select(Item)).all())
    with pytest.raises(IntegrityError):
        worker.message(lambda own: own.connection.execute(insert(ITEMS).values(name="cup")))
    assert worker.driver_connection() is first


def test_a_handler_that_never_touches_the_database_begins_nothing(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        assert not own.in_transaction
        with somebody_else_on(path) as other:
            other.execute("BEGIN EXCLUSIVE")

    worker.message(handler)


def test_a_transaction_waits_for_the_first_statement(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        assert not own.connection.in_transaction()
        with somebody_else_on(path) as other:
            other.execute("BEGIN IMMEDIATE")

    worker.message(handler)


def test_connection_and_session_see_each_other_and_commit_together(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        own.session.add(Item(name="cup"))
        own.session.flush()
        assert own.connection.scalars(select(ITEMS.c.name)).all() == ["cup"]
        own.connection.execute(insert(ITEMS).values(name="plate"))
        assert own.session.scalars(select(Item.name).order_by(Item.id)).all() == ["cup", "plate"]
        assert names_in(path) == []

    worker.message(handler)
    assert names_in(path) == ["cup", "plate"]


def test_what_a_session_has_not_flushed_is_committed_too(worker: Worker, path: Path) -> None:
    worker.message(lambda own: own.session.add(Item(name="cup")))
    assert names_in(path) == ["cup"]


@pytest.mark.parametrize("early", ["connection", "session"])
def test_a_handler_may_commit_early_and_go_on_in_a_new_transaction(
    worker: Worker, path: Path, early: str
) -> None:
    def handler(own: OwnConnection) -> None:
        own.session.add(Item(name="kept"))
        own.connection.execute(text("SELECT 1"))
        getattr(own, early).commit()
        assert names_in(path) == ["kept"]
        own.session.add(Item(name="lost"))
        own.connection.execute(insert(ITEMS).values(name="lost too"))
        raise OrderRefusedError

    with pytest.raises(OrderRefusedError):
        worker.message(handler)
    assert names_in(path) == ["kept"]


@pytest.mark.parametrize("undo", ["connection", "session"])
def test_a_handler_may_roll_back_and_go_on(worker: Worker, path: Path, undo: str) -> None:
    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="lost"))
        own.session.add(Item(name="lost too"))
        own.session.flush()
        getattr(own, undo).rollback()
        own.session.add(Item(name="cup"))

    worker.message(handler)
    assert names_in(path) == ["cup"]


def test_begin_blocks_work_as_in_sqlalchemy(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        with own.connection.begin():
            own.connection.execute(insert(ITEMS).values(name="cup"))
        assert names_in(path) == ["cup"]
        with own.session.begin():
            own.session.add(Item(name="plate"))
        assert names_in(path) == ["cup", "plate"]

    worker.message(handler)


def test_a_session_goes_on_after_a_block_on_the_connection_has_ended_its_transaction(
    worker: Worker, path: Path
) -> None:
    def handler(own: OwnConnection) -> None:
        with own.connection.begin():
            own.session.add(Item(name="cup"))
            own.session.flush()
        own.session.add(Item(name="plate"))

    worker.message(handler)
    assert names_in(path) == ["cup", "plate"]


def test_a_savepoint_undoes_its_part_only(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        savepoint = own.connection.begin_nested()
        own.connection.execute(insert(ITEMS).values(name="lost"))
        savepoint.rollback()
        with pytest.raises(IntegrityError), own.session.begin_nested():
            own.session.add(Item(name="cup"))
        own.session.add(Item(name="plate"))

    worker.message(handler)
    assert names_in(path) == ["cup", "plate"]


def test_tables_made_in_a_message_that_fails_are_not_there(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        own.connection.execute(text("CREATE TABLE half (id INTEGER)"))
        own.connection.execute(insert(ITEMS).values(name="cup"))
        raise OrderRefusedError

    with pytest.raises(OrderRefusedError):
        worker.message(handler)
    with somebody_else_on(path) as other:
        assert other.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    assert names_in(path) == []


def test_a_commit_that_fails_undoes_the_message(worker: Worker, path: Path) -> None:
    def tables(own: OwnConnection) -> None:
        own.connection.execute(
            text("CREATE TABLE line (item INTEGER REFERENCES item(id) DEFERRABLE INITIALLY DEFERRED)")
        )

    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        own.connection.execute(text("INSERT INTO line VALUES (77)"))

    worker.message(tables)
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        worker.message(handler)
    assert names_in(path) == []
    worker.message(lambda own: own.session.add(Item(name="plate")))
    assert names_in(path) == ["plate"]


@pytest.mark.parametrize("of", ["connection", "session"])
def test_closing_inside_a_transaction_is_refused_because_it_would_undo_it(worker: Worker, of: str) -> None:
    def handler(own: OwnConnection) -> None:
        with getattr(own, of) as held:
            held.execute(insert(ITEMS).values(name="cup"))

    with pytest.raises(
        ConnectionMisused, match=f"ctx.{of} was closed inside its transaction.*committed when"
    ):
        worker.message(handler)


@pytest.mark.parametrize("of", ["connection", "session"])
def test_a_with_block_that_commits_is_fine_and_one_that_raises_rolls_back(
    worker: Worker, path: Path, of: str
) -> None:
    def handler(own: OwnConnection) -> None:
        with getattr(own, of) as held:
            held.execute(insert(ITEMS).values(name="cup"))
            held.commit()
        with suppress(OrderRefusedError), getattr(own, of) as held:
            held.execute(insert(ITEMS).values(name="lost"))
            raise OrderRefusedError
        held.execute(insert(ITEMS).values(name="plate"))

    worker.message(handler)
    assert names_in(path) == ["cup", "plate"]


def test_a_connection_kept_for_the_next_message_is_refused_in_words(worker: Worker, path: Path) -> None:
    kept: list[Connection | Session] = []
    worker.message(lambda own: kept.extend([own.connection, own.session]))
    worker.message(lambda own: kept.extend([own.session, Session(own.connection)]))

    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        for old in kept:
            with pytest.raises(ConnectionMisused, match="of an earlier message was used"):
                old.execute(insert(ITEMS).values(name="stray"))

    worker.message(handler)
    assert names_in(path) == ["cup"]


def test_a_second_connection_from_the_engine_is_refused_in_words(worker: Worker, path: Path) -> None:
    engines: list[Engine] = []

    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        engines.append(own.connection.engine)
        with pytest.raises(ConnectionMisused, match="one database connection"):
            engines[0].connect()

    worker.message(handler)
    with pytest.raises(ConnectionMisused, match="one database connection"):
        engines[0].connect()
    assert names_in(path) == ["cup"]


def test_detaching_is_refused(worker: Worker) -> None:
    with pytest.raises(ConnectionMisused, match="detached"):
        worker.message(lambda own: own.connection.detach())


def test_what_the_driver_was_told_directly_is_committed_with_the_message(worker: Worker, path: Path) -> None:
    def handler(own: OwnConnection) -> None:
        raw = own.connection.connection.driver_connection
        assert raw is not None
        raw.execute("BEGIN")
        raw.execute("INSERT INTO item (name) VALUES ('cup')")

    def failing(own: OwnConnection) -> None:
        handler(own)
        raise OrderRefusedError

    with pytest.raises(OrderRefusedError):
        worker.message(failing)
    assert names_in(path) == []
    worker.message(handler)
    assert names_in(path) == ["cup"]


def test_it_may_be_opened_used_and_closed_by_three_threads(path: Path) -> None:
    worker = Worker(f"sqlite:///{path}")
    steps: list[Callable[[], object]] = [
        worker.own.open,
        lambda: worker.message(
            lambda own: own.connection.execute(text("CREATE TABLE item (id INTEGER, name TEXT)"))
        ),
        lambda: worker.message(lambda own: own.session.execute(insert(ITEMS).values(id=1, name="cup"))),
        worker.own.close,
    ]
    for step in steps:
        thread = Thread(target=step)
        thread.start()
        thread.join()
    assert names_in(path) == ["cup"]


def test_closing_rolls_back_what_is_open_and_twice_is_harmless(worker: Worker, path: Path) -> None:
    worker.own.begin("store")
    worker.own.connection.execute(insert(ITEMS).values(name="cup"))
    worker.own.close()
    worker.own.close()
    assert names_in(path) == []
    assert not path.with_name("app.db-wal").exists(), "an orderly close leaves no log behind"
    with pytest.raises(DatabaseUnavailable):
        worker.message(lambda own: own.connection)


def test_closing_before_opening_is_harmless(path: Path) -> None:
    worker = Worker(f"sqlite:///{path}")
    worker.own.close()
    assert repr(worker.own) == "<OwnConnection not open, closed, idle>"


def test_its_repr_tells_where_and_in_which_state(worker: Worker, path: Path) -> None:
    assert repr(worker.own) == f"<OwnConnection sqlite:///{path}, held, idle>"
    worker.own.begin("store")
    assert worker.own.connection is worker.own.connection
    assert repr(worker.own) == f"<OwnConnection sqlite:///{path}, held, in a message>"


def test_without_a_url_nothing_is_opened_and_a_handler_is_told_what_to_set() -> None:
    worker = Worker("sqlite:///unused.db")
    worker.own = OwnConnection(DatabaseSection(), log=worker.own._log)
    worker.own.open()
    worker.message(repr)
    with pytest.raises(ConfigurationError, match=r"database\.url is not set"):
        worker.message(lambda own: own.connection)
    worker.own.close()


def test_a_write_over_the_channel_is_refused_while_this_message_holds_the_write_lock(
    worker: Worker, path: Path
) -> None:
    assert worker.own.sqlite_path == str(path.resolve())

    def handler(own: OwnConnection) -> None:
        own.check_channel_use(writes=True)
        own.connection.execute(insert(ITEMS).values(name="cup"))
        own.check_channel_use(writes=False)
        with pytest.raises(ConnectionMisused, match=r"handler store .*through ctx\.db while ctx\.connection"):
            own.check_channel_use(writes=True)
        own.connection.commit()
        own.check_channel_use(writes=True)

    worker.message(handler)
    worker.own.check_channel_use(writes=True)


def test_a_write_over_the_channel_is_refused_also_when_the_file_has_moved_behind_a_link(
    worker: Worker, path: Path, tmp_path: Path
) -> None:
    path.rename(tmp_path / "elsewhere.db")
    path.symlink_to(tmp_path / "elsewhere.db")

    def handler(own: OwnConnection) -> None:
        own.connection.execute(insert(ITEMS).values(name="cup"))
        with pytest.raises(ConnectionMisused):
            own.check_channel_use(writes=True)
        own.connection.rollback()

    worker.message(handler)


def test_whoever_refuses_a_transaction_is_asked_before_each(worker: Worker, path: Path) -> None:
    refusals = [ConnectionMisused("not both ways"), ConnectionMisused("still not")]

    def ask() -> None:
        if refusals:
            raise refusals.pop()

    worker.own.before_transaction = ask

    def handler(own: OwnConnection) -> None:
        for _ in range(2):
            with pytest.raises(ConnectionMisused):
                own.connection.execute(insert(ITEMS).values(name="refused"))
        own.connection.execute(insert(ITEMS).values(name="cup"))
        raise OrderRefusedError

    with pytest.raises(OrderRefusedError):
        worker.message(handler)
    assert names_in(path) == [], (
        "a refused begin must not let the next statement run outside of a transaction"
    )


def test_foreign_keys_are_on_and_durability_is_as_set(path: Path) -> None:
    with worker_on(path, synchronous="NORMAL") as worker:

        def pragma(name: str) -> object:
            return worker.message(lambda own: own.connection.exec_driver_sql(f"PRAGMA {name}").scalar())

        assert (pragma("foreign_keys"), pragma("journal_mode"), pragma("synchronous")) == (1, "wal", 1)


def test_a_wrong_statement_is_the_handlers_fault(worker: Worker) -> None:
    with pytest.raises(OperationalError) as caught:
        worker.message(lambda own: own.connection.execute(text("SELECT nonsense")))
    assert not worker.own.is_lost(caught.value)
    assert not worker.own.is_busy(caught.value)
