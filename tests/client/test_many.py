"""`Client.publish_many`: pipelined, bounded, and one result a message."""

import gc
import warnings
from collections.abc import Iterator

import pytest

from penstock import Client
from penstock.app.messages import Outgoing
from penstock.app.parcels import Item
from penstock.errors import BusUnavailable, NotCarried, PayloadError, Unroutable
from tests.client.reader import Reader


def test_many_are_confirmed_in_order_with_their_ids(client: Client, reader: Reader) -> None:
    results = list(
        client.publish_many(((reader.queue, {"number": number}) for number in range(230)), window=100)
    )

    assert [result.error for result in results] == [None] * 230
    assert reader.read_ids(230) == [result.id for result in results]


def test_no_more_than_the_window_is_under_way(embedded_reader: Reader) -> None:
    drawn = 0

    def items() -> Iterator[tuple[str, int]]:
        nonlocal drawn
        for number in range(1000):
            drawn += 1
            yield embedded_reader.queue, number

    with Client(embedded_reader.url) as client:
        results = client.publish_many(items(), window=40)
        next(results)
        assert drawn <= 50
        assert sum(1 for _ in results) == 999


def test_one_bad_message_of_many_costs_itself(client: Client, reader: Reader) -> None:
    items: list[Item] = [
        (reader.queue, {"number": 1}, {"id": "m-1"}),
        (reader.queue, object(), {"id": "m-2"}),
        ("no.such.queue", {}, {"id": "m-3"}),
        Outgoing(reader.queue, b"{}", message_id="m-4"),
        Outgoing(reader.queue, b"{}"),
    ]

    results = list(client.publish_many(items))

    assert [result.id for result in results[:4]] == ["m-1", "m-2", "m-3", "m-4"]
    assert results[4].id
    assert [type(result.error) for result in results] == [
        type(None), PayloadError, Unroutable, type(None), type(None),
    ]  # fmt: skip
    assert reader.read_ids(3) == ["m-1", "m-4", results[4].id]


def test_a_message_that_no_protocol_carries_costs_none_of_its_neighbours(
    client: Client, reader: Reader
) -> None:
    messages = [Outgoing(reader.queue, b"{}", message_id=f"m-{number}") for number in range(5)]
    messages[1] = Outgoing(reader.queue, b"{}", message_id="m-1", headers={"what": object()})
    messages[3] = Outgoing(reader.queue, b"{}", message_id="m-3", correlation_id="\ud800")

    results = list(client.publish_many(messages))

    assert [type(result.error) for result in results] == [
        type(None), NotCarried, type(None), NotCarried, type(None),
    ]  # fmt: skip
    assert sorted(map(str, reader.read_ids(3))) == ["m-0", "m-2", "m-4"]


def test_twins_with_one_id_are_both_published(client: Client, reader: Reader) -> None:
    twins: list[Item] = [(reader.queue, {}, {"id": "twin"})] * 3

    assert client.publish_many(twins).wait() == 3

    assert reader.read_ids(3) == ["twin"] * 3


def test_waiting_for_many_counts_them_or_raises_the_first_error(client: Client, reader: Reader) -> None:
    assert client.publish_many((reader.queue, number) for number in range(5)).wait() == 5
    assert client.publish_many([]).wait() == 0

    with pytest.raises(Unroutable):
        client.publish_many([("no.such.queue", 1), (reader.queue, 2)]).wait()


def test_many_that_are_never_iterated_are_not_lost_in_silence(embedded_reader: Reader) -> None:
    with Client(embedded_reader.url) as client, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        client.publish_many([(embedded_reader.queue, 1)])
        gc.collect()

    assert [str(one.message) for one in warned if one.category is RuntimeWarning] == [
        "publish_many(…) was never iterated, so nothing was published: write .wait() behind it, or a for loop"
    ]


def test_many_to_a_bus_that_is_not_there_stop_at_once() -> None:
    with Client("amqp://guest@127.0.0.1:1/") as client, pytest.raises(BusUnavailable):
        client.publish_many(("work", number) for number in range(10_000)).wait()


def test_large_messages_do_not_fill_a_window(embedded_reader: Reader) -> None:
    drawn = 0

    def items() -> Iterator[tuple[str, bytes]]:
        nonlocal drawn
        for _ in range(20):
            drawn += 1
            yield embedded_reader.queue, bytes(3 * 1024 * 1024)

    with Client(embedded_reader.url) as client:
        results = client.publish_many(items())
        next(results)
        assert drawn < 12
        assert all(result.error is None for result in results)


def test_a_window_holds_at_least_one(embedded_reader: Reader) -> None:
    with Client(embedded_reader.url) as client:
        with pytest.raises(PayloadError, match="window"):
            client.publish_many([], window=0)
        assert client.publish_many([(embedded_reader.queue, 1)] * 3, window=1).wait() == 3
