"""A web application that takes orders and publishes them; the handlers are somebody else's business.

PENSTOCK_BUS__URL=sqlite:///../orders/penstock.db flask --app web run
"""

from decimal import Decimal

from flask import Flask, Response, jsonify, make_response, request
from pydantic import BaseModel, ValidationError

from penstock import BusUnavailable, Client, PublishError


class Order(BaseModel):
    id: int
    total: Decimal
    customer: str = "somebody"


def create_app(client: Client | None = None) -> Flask:
    """The application; without a client it publishes to the bus that the settings name."""
    app = Flask(__name__)
    # One for the process, for all its threads; it connects at the first order.
    bus = client or Client(timeout=5)

    @app.post("/orders")
    def create() -> Response:
        try:
            order = Order.model_validate_json(request.get_data())
        except ValidationError as error:
            return _answer(400, error=str(error))
        try:
            # The order's own id: when the browser sends it again, the message is recognisable.
            message_id = bus.publish("orders.created", order, id=f"order-{order.id}")
        except (PublishError, BusUnavailable) as error:
            app.logger.error("order %s was not published: %s", order.id, error)  # noqa: TRY400
            return _answer(503, error="the order was not taken; send it again")
        return _answer(202, message=message_id)

    return app


def _answer(status: int, **content: str) -> Response:
    return make_response(jsonify(content), status)
