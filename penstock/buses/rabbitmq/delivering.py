"""From the stream to the sink: what comes on one consuming AMQP channel, noted for its consumer."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.buses.contract import Sink
from penstock.buses.rabbitmq.acks import ChannelSettler
from penstock.buses.rabbitmq.headers import to_delivery
from penstock.buses.rabbitmq.stream import Content, Taker
from penstock.buses.rabbitmq.watchdog import Flow


def taker_of(flows: Mapping[str, Flow], settler: ChannelSettler, sink: Sink, login: str) -> Taker:
    """What takes the messages of one AMQP channel: whose consumer each is for says its tag."""

    def deliver(content: Content) -> None:
        # What comes after the end of its AMQP channel is handed out again by the broker.
        if not settler.is_gone:
            flow = flows[content.consumer_tag]
            flow.recent.append(content.tag)
            sink(to_delivery(content, flow.queue, settler, login, is_counted=flow.is_counted))

    return deliver
