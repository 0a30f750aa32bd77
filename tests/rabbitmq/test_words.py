"""What is declared, and what differs on the broker in words; which delay takes which queue."""

import pytest

from penstock.app.queues import Binding, QueueDeclaration
from penstock.buses.rabbitmq.delays import level_ms
from penstock.buses.rabbitmq.topology import dead_arguments, difference, missing, work_arguments

QUORUM = QueueDeclaration(name="orders")
DAY_S = 86_400


def refusal(argument: str, received: str, current: str, queue: str = "orders") -> str:
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{queue}' in vhost '/': "
        f"received {received} but current is {current}"
    )


def test_a_queue_of_another_type_names_both_and_what_to_write() -> None:
    line = difference(
        QUORUM,
        refusal(
            "x-queue-type", "the value 'quorum' of type 'longstr'", "the value 'classic' of type 'longstr'"
        ),
    )

    assert line == (
        "queue 'orders': argument 'x-queue-type' is 'classic' on the broker, the handler declares 'quorum'; "
        "to use it as it is write @app.handler('orders', declare=False, or type='classic')"
    )


def test_an_argument_that_is_missing_there_is_none() -> None:
    line = difference(QUORUM, refusal("x-delivery-limit", "the value '1000000' of type 'signedint'", "none"))

    assert "argument 'x-delivery-limit' is none on the broker, the handler declares '1000000'" in line
    assert "type='classic'" not in line


def test_a_dead_letter_queue_that_differs_is_named_for_itself() -> None:
    classic = refusal("x-queue-type", "the value 'quorum' of type 'longstr'", "none", queue="orders.dead")

    line = difference(QUORUM, classic)

    assert line.startswith("queue 'orders.dead': argument 'x-queue-type' is none on the broker")
    assert line.endswith("@app.handler('orders', declare=False)")


def test_any_other_refusal_is_passed_on_with_the_queue() -> None:
    line = difference(QUORUM, "RESOURCE_LOCKED - cannot obtain exclusive access")

    assert line.startswith("queue 'orders': ")
    assert "RESOURCE_LOCKED - cannot obtain exclusive access" in line
    assert "declare=False" in line


def test_a_missing_queue_says_how_to_create_it_with_its_bindings() -> None:
    line = missing(QueueDeclaration(name="orders", declare=False, bindings=(Binding("shop", "order.*"),)))

    assert "queue 'orders' does not exist" in line
    assert "rabbitmqadmin declare queue name=orders durable=true" in line
    assert "rabbitmqadmin declare exchange name=shop type=topic" in line
    assert "source=shop destination=orders routing_key='order.*'" in line


def test_a_work_queue_loses_nothing_by_its_arguments() -> None:
    assert work_arguments(QUORUM) == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "orders.dead",
        "x-delivery-limit": 1_000_000,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert work_arguments(QueueDeclaration(name="o", type="classic", max_priority=5))["x-max-priority"] == 5


@pytest.mark.parametrize(
    ("delay_s", "level"),
    [
        (0.000001, 64),
        (0.064, 64),
        (0.0641, 128),
        (1.0, 1024),
        (1.024, 1024),
        (1.025, 2048),
        (12 * DAY_S, 2**30),
        (400 * DAY_S, 2**30),
    ],
)
def test_a_delay_takes_the_next_level_up(delay_s: float, level: int) -> None:
    assert level_ms(delay_s) == level


def test_no_delay_is_early_or_more_than_twice_as_late() -> None:
    for milliseconds in (*range(64, 5000), 10**6, 10**6 + 1, 12 * DAY_S * 1000):
        assert milliseconds <= level_ms(milliseconds / 1000) < 2 * milliseconds


def test_a_dead_letter_queue_says_how_often_it_may_be_looked_through() -> None:
    # RabbitMQ 4 drops what was handed out 20 times when nothing is said.
    assert dead_arguments() == {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
