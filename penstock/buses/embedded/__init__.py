"""The embedded bus: a durable queue in one SQLite file, the default when no broker is configured.

`bus` is what the rest of Penstock sees. Below it: `pump` and `deliveries` consume, `publishing` stores, `writer`
is the one thread that touches the file, `rounds` what it does for the pump; `store`, `topology` and `leases` are
SQL on a connection; `file`, `schema`, `clock` and `wakeup` are what they stand on.

Durability: a publish is confirmed, and an ack counts, after a COMMIT with `synchronous=FULL`: it survives a
power cut as far as the disk tells the truth about fsync.
"""

from penstock.buses.embedded.bus import EmbeddedBus

__all__ = ["EmbeddedBus"]
