"""Which broker the tests start here: RabbitMQ of this machine, else a container."""

from tests.broker import Broker, NoBrokerError, PrivateBroker
from tests.compose_broker import ComposeBroker


def new_broker() -> Broker:
    """A broker that is not started yet; raises NoBrokerError, with the words for the user, when there is no way."""
    try:
        return PrivateBroker()
    except NoBrokerError as no_server:
        try:
            return ComposeBroker()
        except NoBrokerError as no_container:
            raise NoBrokerError(f"{no_server}; {no_container}: scripts/broker says what to install") from None
