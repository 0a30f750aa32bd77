"""A program that takes deliveries of a queue and settles none; a test kills it.

`BUS_URL=… python -m tests.contract.consumer_process QUEUE` prints the id of each delivery on a line.
"""

import asyncio
import os
import sys

from pydantic import SecretStr

from penstock.app.queues import QueueDeclaration
from penstock.buses.address import open_bus
from penstock.buses.contract import Delivery, Subscription
from penstock.config.bus import BusSection


def tell(delivery: Delivery) -> None:
    sys.stdout.write(f"{delivery.message_id}\n")
    sys.stdout.flush()


async def main(queue: str) -> None:
    bus = open_bus(BusSection(url=SecretStr(os.environ["BUS_URL"])))
    await bus.connect()
    await bus.consume([Subscription(QueueDeclaration(name=queue), prefetch=100)], tell)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
