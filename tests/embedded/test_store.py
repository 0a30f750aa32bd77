"""The SQL of messages: order, claims that fence, and giving back."""

import sqlite3

import pytest

from penstock.app.queues import QueueDeclaration
from penstock.buses.embedded import leases, store, topology


@pytest.fixture
def queue_id(connection: sqlite3.Connection) -> int:
    topology.declare(connection, [QueueDeclaration(name="work", type="classic", max_priority=9)])
    found = topology.find_queue(connection, "work")
    assert found is not None
    return found[0]


@pytest.fixture
def lease_id(connection: sqlite3.Connection) -> int:
    return leases.take(connection, None, 60.0)


def append(
    connection: sqlite3.Connection, queue_id: int, *names: str, priority: int = 0, due_ms: int | None = None
) -> None:
    content = {
        name: store.Content(name, None, None, None, None, None, None, None, 0.0, 0, 0, 0.0, name.encode())
        for name in names
    }
    store.append(
        connection, [(store.NewMessage(queue_id, priority, due_ms), content[name]) for name in names]
    )


def names_of(claimed: list[store.Claimed]) -> list[str | None]:
    return [message.message_id for message in claimed]


def test_claims_go_by_priority_and_then_by_arrival(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "a", "b")
    append(connection, queue_id, "urgent", priority=9)
    append(connection, queue_id, "c")

    assert names_of(store.claim(connection, lease_id, queue_id, 2)) == ["urgent", "a"]
    assert names_of(store.claim(connection, lease_id, queue_id, 9)) == ["b", "c"]
    assert store.claim(connection, lease_id, queue_id, 9) == []


def test_a_requeued_message_has_its_old_place(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "a", "b", "c")
    first, second = store.claim(connection, lease_id, queue_id, 2)

    assert store.requeue(connection, lease_id, [first.id], delivered=True) == {queue_id}
    assert store.requeue(connection, lease_id, [second.id], delivered=False) == {queue_id}

    again = store.claim(connection, lease_id, queue_id, 9)
    assert names_of(again) == ["a", "b", "c"]
    assert [bool(message.redelivered) for message in again] == [True, False, False]
    assert [message.delivery_count for message in again] == [0, 0, 0]


def test_another_lease_settles_nothing(connection: sqlite3.Connection, queue_id: int, lease_id: int) -> None:
    append(connection, queue_id, "a")
    (message,) = store.claim(connection, lease_id, queue_id, 1)
    other = leases.take(connection, None, 60.0)

    assert store.ack(connection, other, [message.id]) == 0
    assert store.requeue(connection, other, [message.id], delivered=True) == set()

    assert store.claimed_by(connection, lease_id) == {message.id}
    assert store.ack(connection, lease_id, [message.id]) == 1


def test_a_lease_that_was_ended_settles_nothing(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "a")
    (message,) = store.claim(connection, lease_id, queue_id, 1)

    assert leases.end(connection, lease_id, counted=True) == {queue_id}

    assert store.ack(connection, lease_id, [message.id]) == 0
    other = leases.take(connection, None, 60.0)
    assert other > lease_id
    (again,) = store.claim(connection, other, queue_id, 1)
    assert (again.redelivered, again.delivery_count) == (1, 1)


def test_an_id_is_never_given_twice(connection: sqlite3.Connection, queue_id: int, lease_id: int) -> None:
    seen: set[int] = set()
    for _ in range(5):
        append(connection, queue_id, "a")
        (message,) = store.claim(connection, lease_id, queue_id, 1)
        assert message.id not in seen
        seen.add(message.id)
        store.ack(connection, lease_id, [message.id])


def test_an_acked_message_leaves_nothing_behind(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "a", "b")
    store.ack(
        connection, lease_id, [message.id for message in store.claim(connection, lease_id, queue_id, 2)]
    )

    assert connection.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM contents").fetchone() == (0,)


def test_delayed_messages_wait_and_then_join_at_the_end(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "late", due_ms=2000)
    append(connection, queue_id, "soon", due_ms=1000)
    append(connection, queue_id, "now")

    assert store.next_due_ms(connection) == 1000
    assert store.promote(connection, 999) == set()
    assert store.count_ready(connection, queue_id) == 1

    assert store.promote(connection, 2000) == {queue_id}
    append(connection, queue_id, "newest")

    assert store.next_due_ms(connection) is None
    assert names_of(store.claim(connection, lease_id, queue_id, 9)) == ["now", "soon", "late", "newest"]


def test_claims_behind_a_place_never_come_back_to_it(
    connection: sqlite3.Connection, queue_id: int, lease_id: int
) -> None:
    append(connection, queue_id, "a", "b", "c")
    append(connection, queue_id, "urgent", priority=3)
    first, second = store.claim(connection, lease_id, queue_id, 2, store.BEFORE_ALL)
    store.requeue(connection, lease_id, [first.id, second.id], delivered=True)

    rest = store.claim(connection, lease_id, queue_id, 9, second.place)

    assert names_of([first, second]) == ["urgent", "a"]
    assert names_of(rest) == ["b", "c"]


def test_claims_read_the_index_and_sort_nothing(connection: sqlite3.Connection, queue_id: int) -> None:
    for statement, values in (
        (store._FROM_THE_HEAD, (queue_id, 9)),
        (store._FROM_A_PLACE, (queue_id, 0, 0, 0, 9)),
    ):
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        assert any("messages_ready" in step for step in plan), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
