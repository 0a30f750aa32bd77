"""Two hundred handlers in many modules: what `include`, `select` and `load_app` find, and what they say when they don't."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import App, HandlerError, Router
from penstock.app.application import load_app

ROUTER = """
from penstock import Router
router = Router()

@router.handler({queue!r})
def handle(payload: dict) -> None: ...
"""

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module below a folder that is imported from; forgotten at the end of the test."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if not name.startswith("penstock"):
            del sys.modules[name]


@pytest.fixture
def shop(write: Write) -> None:
    write("shop/__init__.py", ROUTER.format(queue="shop"))
    write("shop/orders.py", ROUTER.format(queue="shop.orders"))
    write("shop/stock/__init__.py", "")
    write("shop/stock/levels.py", ROUTER.format(queue="shop.stock.levels"))
    write("shop/plain.py", "x = 1\n")
    write("shopping.py", ROUTER.format(queue="shopping"))


def queues(app: App) -> list[str]:
    return sorted(handler.queue.name for handler in app.handlers)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("shop", ["shop"]),
        ("shop.orders", ["shop.orders"]),
        ("shop.*", ["shop", "shop.orders", "shop.stock.levels"]),
        ("shop.stock.*", ["shop.stock.levels"]),
        ("shop.orders.*", ["shop.orders"]),
    ],
)
def test_a_pattern_takes_a_module_or_everything_below_a_package(pattern: str, found: list[str]) -> None:
    app = App()
    app.include(pattern)
    assert queues(app) == found


@pytest.mark.usefixtures("shop")
def test_a_router_that_other_modules_import_comes_in_once(write: Write) -> None:
    write("shop/again.py", "from shop.orders import router as theirs\n")
    app = App()
    app.include("shop.*")
    app.include("shop.*")
    assert queues(app) == ["shop", "shop.orders", "shop.stock.levels"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("shop.plain", r"no Router in shop\.plain; write router = Router\(\)"),
        ("nowhere", "no module 'nowhere'"),
        ("nowhere.at.all", "no module 'nowhere'"),
        ("shop.nowhere", r"no module 'shop\.nowhere'"),
        ("*", "write a module"),
        ("shop.*.orders", "write a module"),
        ("sh*p", "write a module"),
    ],
)
def test_a_pattern_that_finds_nothing_says_what_to_write(pattern: str, words: str) -> None:
    with pytest.raises(HandlerError, match=words):
        App().include(pattern)


def test_a_module_that_cannot_import_something_of_its_own_shows_that(write: Write) -> None:
    write("broken/__init__.py", "")
    write("broken/orders.py", "import no_such_library\n")

    for pattern in ("broken.*", "broken.orders"):
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            App().include(pattern)


def test_two_routers_with_one_queue_are_both_named(write: Write) -> None:
    write("one.py", ROUTER.format(queue="orders"))
    write("two.py", ROUTER.format(queue="orders"))
    app = App()
    app.include("one")

    with pytest.raises(HandlerError, match=r"'orders' has two handlers, one\.handle and two\.handle"):
        app.include("two")


def test_an_included_router_may_be_given_itself() -> None:
    router = Router()

    @router.handler("orders")
    def handle(payload: int) -> None: ...

    app = App()
    app.include(router)
    app.include(router)

    assert app.handlers == (handle,)
    assert repr(app) == "<App [1 handlers]>"
    assert repr(router) == "<Router [1 handlers]>"


# --- select


@pytest.fixture
def app() -> App:
    app = App()

    def handle(payload: int) -> None: ...

    for queue in ("orders.created", "orders.paid", "stock"):
        app.handler(queue)(handle)
    return app


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        ([], ["orders.created", "orders.paid", "stock"]),
        (["orders.*"], ["orders.created", "orders.paid"]),
        (["stock", "orders.paid"], ["orders.paid", "stock"]),
        (["*"], ["orders.created", "orders.paid", "stock"]),
        (["orders.pai?", "*.paid"], ["orders.paid"]),
    ],
)
def test_select_takes_queues_by_pattern_in_order_of_declaration(
    app: App, patterns: list[str], found: list[str]
) -> None:
    assert [handler.queue.name for handler in app.select(patterns)] == found


def test_a_pattern_that_selects_nothing_lists_what_there_is(app: App) -> None:
    with pytest.raises(
        HandlerError, match=r"--only 'orders' matches no queue; .*orders\.created, orders\.paid, stock"
    ):
        app.select(["stock", "orders"])
    with pytest.raises(HandlerError, match="the application has: none"):
        App().select(["x"])


# --- hooks


def test_stop_hooks_run_in_the_opposite_order_of_their_declaration() -> None:
    app = App()
    ran = []
    for name in "ab":
        app.on_worker_start(lambda _, name=name: ran.append(f"start {name}"))
        app.on_worker_stop(lambda _, name=name: ran.append(f"stop {name}"))

    for hook in (*app.start_hooks, *app.stop_hooks):
        hook(None)  # type: ignore[arg-type]

    assert ran == ["start a", "start b", "stop b", "stop a"]


# --- load_app

APP = "from penstock import App\napp = App()\nother = App()\nnumber = 7\n"


def test_an_application_is_found_by_module_and_attribute(write: Write) -> None:
    write("service.py", APP)

    assert load_app("service") is load_app("service:app")
    assert load_app("service:other") is not load_app("service:app")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("no_such_service:app", "there is no module 'no_such_service' here"),
        ("service.deeper:app", r"there is no module 'service\.deeper' here"),
        ("service:nothing", "service has no App named 'nothing'; write service:app"),
        ("service:number", "service has no App named 'number'; write service:app"),
        ("empty:app", r"empty has no App named 'app'; write app = App\(\) in it"),
    ],
)
def test_an_application_that_is_not_there_says_what_to_write(write: Write, address: str, words: str) -> None:
    write("service.py", APP)
    write("empty.py", "")

    with pytest.raises(HandlerError, match=words):
        load_app(address)


def test_an_application_that_cannot_import_something_shows_that(write: Write) -> None:
    write("service.py", "import no_such_library\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_app("service:app")
