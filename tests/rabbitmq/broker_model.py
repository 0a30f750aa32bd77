"""What a broker does with the acks of one AMQP channel: refuses what is not out, forgets, or hands out again."""

from penstock.buses.rabbitmq.acks import AckFrame, NackFrame


class ChannelClosedError(Exception):
    """Raised for an ack that makes RabbitMQ close the AMQP channel (PRECONDITION_FAILED, unknown delivery tag)."""


class BrokerModel:
    """One AMQP channel as the broker sees it; `deliver` hands out the next tag."""

    def __init__(self) -> None:
        self.unsettled: set[int] = set()
        self.acked: set[int] = set()
        self.requeued: set[int] = set()
        self._last = 0

    def deliver(self) -> int:
        self._last += 1
        self.unsettled.add(self._last)
        return self._last

    def write(self, frame: AckFrame | NackFrame) -> None:
        """Raises `ChannelClosedError` for a tag that is settled, or was never handed out."""
        if frame.tag not in self.unsettled:
            raise ChannelClosedError(frame)
        match frame:
            case NackFrame(tag):
                self.requeued.add(tag)
                self.unsettled.discard(tag)
            case AckFrame(tag, multiple=True):
                self.acked |= {out for out in self.unsettled if out <= tag}
                self.unsettled = {out for out in self.unsettled if out > tag}
            case AckFrame(tag):
                self.acked.add(tag)
                self.unsettled.discard(tag)
