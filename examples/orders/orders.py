"""A small shop: orders come in, become rows, and each customer's turnover is kept.

penstock run orders:app
"""

from decimal import Decimal
from types import SimpleNamespace

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, Numeric, String, Table, create_engine
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.schema import CreateTable

from penstock import App, AsyncContext, Backoff, Context, Reject
from penstock.config import load_settings

app = App()

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("customer", String(80), nullable=False),
    Column("total", Numeric(10, 2), nullable=False),
)
turnover = Table(
    "turnover",
    metadata,
    Column("customer", String(80), primary_key=True),
    Column("cents", Integer, nullable=False),
)
# Orders that are in the turnover: a message may come twice.
counted = Table("counted", metadata, Column("order_id", Integer, primary_key=True))


class Order(BaseModel):
    id: int
    total: Decimal
    customer: str = "somebody"


class Stored(BaseModel):
    order_id: int
    customer: str
    cents: int


@app.on_worker_start
def create_tables(_state: SimpleNamespace) -> None:
    """The example begins with an empty database; a service of yours has migrations."""
    url = load_settings().database.url
    if url is None:
        return
    engine = create_engine(url.get_secret_value())
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            # Every worker does it, perhaps at the same moment.
            connection.execute(CreateTable(table, if_not_exists=True))
    engine.dispose()


@app.handler("orders.created", timeout=30, retry=Backoff(attempts=5))
def store(order: Order, ctx: Context) -> None:
    """Runs in a worker process, in one transaction; the second message for an order changes nothing."""
    if order.total < 0:
        raise Reject(f"order {order.id} has a negative total, {order.total}")
    row = insert(orders).values(id=order.id, customer=order.customer, total=order.total)
    ctx.connection.execute(row.on_conflict_do_nothing())
    # Leaves after the commit.
    ctx.bus.publish(
        "orders.stored", Stored(order_id=order.id, customer=order.customer, cents=int(order.total * 100))
    )


@app.handler("orders.stored")
async def count(event: Stored, ctx: AsyncContext) -> None:
    """Runs on the event loop; its statements go through the database channel."""
    async with ctx.db.transaction() as tx:
        is_new = await tx.execute(
            "INSERT INTO counted (order_id) VALUES (?) ON CONFLICT DO NOTHING", [event.order_id]
        )
        if is_new:
            await tx.execute(
                "INSERT INTO turnover (customer, cents) VALUES (:customer, :cents) "
                "ON CONFLICT (customer) DO UPDATE SET cents = cents + excluded.cents",
                {"customer": event.customer, "cents": event.cents},
            )
    ctx.log.info("order counted", order=event.order_id)
