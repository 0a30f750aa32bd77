"""`AsyncClient`: the same promises, awaited."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from penstock import AsyncClient
from penstock.errors import BusUnavailable, ClientError, PayloadError, Unroutable
from tests.client.reader import Reader


async def test_a_hundred_coroutines_publish_over_one_connection(url: str, reader: Reader) -> None:
    async with AsyncClient(url) as client:
        ids = await asyncio.gather(
            *(client.publish(reader.queue, {"number": number}) for number in range(100))
        )

    assert sorted(str(delivery.message_id) for delivery in await reader.take(100)) == sorted(ids)


async def test_what_cannot_be_published_is_an_error_in_words(url: str, reader: Reader) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(Unroutable, match=r"no\.such\.queue"):
            await client.publish("no.such.queue", {})
        with pytest.raises(PayloadError, match="JSON"):
            await client.publish(reader.queue, object())


async def test_many_come_from_an_ordinary_or_an_asynchronous_source(url: str, reader: Reader) -> None:
    async def numbers() -> AsyncIterator[tuple[str, int]]:
        for number in range(50):
            yield reader.queue, number

    async with AsyncClient(url) as client:
        first = [result async for result in client.publish_many(numbers(), window=8)]
        second = [result async for result in client.publish_many([(reader.queue, 50)])]

    assert [result.error for result in first + second] == [None] * 51
    deliveries = await reader.take(51)
    assert [delivery.message_id for delivery in deliveries] == [result.id for result in first + second]


async def test_leaving_the_iteration_early_leaves_nothing_behind(embedded_reader: Reader) -> None:
    async with AsyncClient(embedded_reader.url) as client:
        results = client.publish_many(((embedded_reader.queue, number) for number in range(1000)), window=8)
        async for result in results:
            assert result.error is None
            break
        await results.aclose()  # type: ignore[attr-defined]
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [task for task in others if "publish" in repr(task.get_coro())]


async def test_all_who_wait_for_the_connection_learn_that_there_is_none() -> None:
    async with AsyncClient("amqp://guest:S3CR3T-canary@127.0.0.1:1/") as client:
        failures = await asyncio.gather(
            *(client.publish("work", {}) for _ in range(5)), return_exceptions=True
        )

    assert [type(failure) for failure in failures] == [BusUnavailable] * 5
    assert len({id(failure) for failure in failures}) == 5
    assert "S3CR3T" not in str(failures[0])


async def test_a_closed_client_says_so(embedded_reader: Reader) -> None:
    client = AsyncClient(embedded_reader.url)
    await client.aclose()
    await client.aclose()

    with pytest.raises(ClientError, match="closed"):
        await client.publish(embedded_reader.queue, {})


def test_a_client_of_one_loop_is_refused_on_another(embedded_reader: Reader) -> None:
    client = AsyncClient(embedded_reader.url)

    async def publish_and_close() -> None:
        await client.publish(embedded_reader.queue, {})
        await client._publisher.aclose()

    asyncio.run(publish_and_close())

    with pytest.raises(ClientError, match="another event loop"):
        asyncio.run(publish_and_close())


async def test_repr_tells_the_state(embedded_reader: Reader) -> None:
    client = AsyncClient(embedded_reader.url)
    assert repr(client) == f"<AsyncClient {embedded_reader.url} [idle]>"
    await client.publish(embedded_reader.queue, {})
    assert repr(client) == f"<AsyncClient {embedded_reader.url} [open]>"
    await client.aclose()
    assert repr(client) == f"<AsyncClient {embedded_reader.url} [closed]>"
