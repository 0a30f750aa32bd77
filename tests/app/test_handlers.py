"""A handler as it is declared: still a plain function, and every wrong word of the declaration is named."""

import asyncio
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from penstock import App, AsyncContext, Backoff, Binding, Context, HandlerError, Router
from penstock.app.handlers import AnyHandler
from penstock.app.queues import QueueDeclaration
from tests.app.handlers import declared


class Order(BaseModel):
    id: int


def ignore(order: Any) -> None: ...


def test_a_decorated_handler_is_still_the_function_and_knows_its_queue() -> None:
    app = App()

    @app.handler(
        "orders", timeout=30, retry=Backoff(attempts=3), bind=[Binding("shop", "order.*")], prefetch=7
    )
    def double(number: int) -> int:
        """Doubles."""
        return 2 * number

    assert double(4) == 8
    assert (vars(double)["__name__"], double.__doc__) == ("double", "Doubles.")
    assert repr(double) == f"<Handler {double.name} on 'orders'>"
    assert double.name.endswith(
        "test_handlers.test_a_decorated_handler_is_still_the_function_and_knows_its_queue.<locals>.double"
    )
    assert double.queue == QueueDeclaration(name="orders", bindings=(Binding("shop", "order.*"),))
    assert (double.options.timeout_s, double.options.retry.attempts, double.options.prefetch) == (30, 3, 7)
    assert double.queue.dead_name == "orders.dead"


async def test_an_async_handler_is_still_awaited() -> None:
    app = App()

    @app.handler("orders")
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    assert double.is_async
    assert await double(4) == 8


async def test_one_function_may_serve_two_queues() -> None:
    app = App()

    @app.handler("orders")
    @app.handler("orders.again")
    async def double(number: int) -> int:
        return 2 * number

    assert [(handler.queue.name, handler.is_async) for handler in app.handlers] == [
        ("orders.again", True),
        ("orders", True),
    ]
    assert await double(4) == 8


class Calling:
    def __call__(self, payload: int) -> None: ...


@pytest.mark.parametrize("what", [Order, Calling(), partial(print, "x"), 7])
def test_what_is_no_function_is_told_to_be_one(what: Any) -> None:
    with pytest.raises(HandlerError, match=r"the handler of queue 'work' is .*; write a function"):
        declared(what)


def test_without_retry_the_first_failure_is_a_dead_letter() -> None:
    assert declared(ignore, retry=None).options.retry.attempts == 1


@pytest.mark.parametrize(
    ("annotation", "is_raw"),
    [(bytes, True), (str, True), (dict, False), (Order, False), (Any, False), (bytes | None, False)],
)
def test_the_annotation_says_whether_the_body_is_decoded(annotation: Any, is_raw: bool) -> None:
    def handle(payload: Any) -> None: ...

    handle.__annotations__["payload"] = annotation
    handler = declared(handle)
    assert handler.payload_type == annotation
    assert handler.is_raw is is_raw


def test_without_an_annotation_anything_is_taken() -> None:
    def handle(payload): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    assert declared(handle).payload_type is Any


def test_an_annotation_keeps_its_constraints() -> None:
    def handle(payload: Annotated[int, "positive"]) -> None: ...

    assert declared(handle).payload_type == Annotated[int, "positive"]


def test_the_context_is_wanted_when_there_is_a_second_parameter() -> None:
    def alone(payload: int) -> None: ...
    def beside(payload: int, ctx: Context) -> None: ...
    def unannotated(payload, ctx): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    assert [declared(handle).wants_context for handle in (alone, beside, unannotated)] == [False, True, True]


# --- signatures that cannot be called


def nothing() -> None: ...
def too_many(payload: int, ctx: Context, more: int) -> None: ...
def keyword_only(*, payload: int) -> None: ...
def second_keyword_only(payload: int, *, ctx: Context) -> None: ...
def any_number(*payloads: int) -> None: ...
def any_names(**payload: int) -> None: ...


@pytest.mark.parametrize(
    "function", [nothing, too_many, keyword_only, second_keyword_only, any_number, any_names]
)
def test_a_signature_that_no_message_can_call_is_shown_with_the_right_one(function: Any) -> None:
    with pytest.raises(HandlerError) as refused:
        declared(function)

    assert f"{__name__}.{function.__name__}(" in str(refused.value)
    assert "def handler(payload: Order, ctx: Context) -> None" in str(refused.value)


def test_a_generator_is_told_how_to_publish() -> None:
    def generate(payload: int) -> Any:
        yield payload

    async def generate_async(payload: int) -> Any:
        yield payload

    for function in (generate, generate_async):
        with pytest.raises(HandlerError, match=r"is a generator.*ctx\.bus\.publish"):
            declared(function)


def test_the_wrong_context_is_named_beside_the_right_one() -> None:
    def plain(payload: int, ctx: AsyncContext) -> None: ...
    async def on_the_loop(payload: int, ctx: Context) -> None: ...
    async def in_quotes(payload: int, ctx: "Context") -> None: ...

    with pytest.raises(HandlerError, match="its context is Context, not AsyncContext"):
        declared(plain)
    for function in (on_the_loop, in_quotes):
        with pytest.raises(HandlerError, match="its context is AsyncContext, not Context"):
            declared(function)


def test_an_annotation_with_an_unknown_name_names_the_handler() -> None:
    def handle(payload: "Ordr") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    handler = declared(handle)

    with pytest.raises(HandlerError, match=r"handle: its annotations cannot be read: name 'Ordr'"):
        handler.payload_type  # noqa: B018


# --- words of the declaration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": -1.5}, "timeout=-1.5"),
        ({"prefetch": 0}, "prefetch=0 is not between 1 and 65535"),
        ({"prefetch": 65536}, "prefetch=65536"),
        ({"content_type": "yaml"}, "'auto', 'json' or 'raw'"),
        ({"type": "stream"}, "'quorum' or 'classic'"),
        ({"max_priority": 5}, "quorum queues have no max_priority; write type='classic'"),
        ({"max_priority": 0, "type": "classic"}, "max_priority=0 is not between 1 and 255"),
        ({"max_priority": 256, "type": "classic"}, "max_priority=256"),
    ],
)
def test_a_wrong_word_of_the_declaration_is_named_with_the_right_ones(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(HandlerError) as refused:
        declared(ignore, **options)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("queue", "words"), [("", "0 bytes"), ("q" * 251, "251 bytes"), ("ü" * 126, "252 bytes")]
)
def test_a_queue_name_leaves_room_for_its_dead_letters(queue: str, words: str) -> None:
    with pytest.raises(HandlerError, match=words):
        declared(ignore, queue)


def test_the_decorator_without_a_queue_says_what_to_write() -> None:
    def store(order: int) -> None: ...

    with pytest.raises(HandlerError, match=r"@app\.handler\('orders\.created'\)"):
        App().handler(store)  # type: ignore[arg-type]


def test_two_handlers_on_one_queue_are_both_named() -> None:
    router = Router()

    @router.handler("orders")
    def first(order: int) -> None: ...

    with pytest.raises(HandlerError, match=r"first and .*second"):

        @router.handler("orders")
        def second(order: int) -> None: ...

    assert router.handlers == (first,)


def test_equal_declarations_are_equal_and_nothing_of_them_changes() -> None:
    handler: AnyHandler = declared(ignore)
    with pytest.raises(AttributeError):
        handler.queue.name = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        handler.options.timeout_s = 3  # type: ignore[misc]
