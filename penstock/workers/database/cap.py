"""How many connections all workers together may come to, and whether the server has so many."""

from __future__ import annotations

from typing import Any, Final

from penstock.config.database import DatabaseSection
from penstock.errors import ConfigurationError
from penstock.workers.database.kind import DatabaseKind

#: A worker is replaced by one that is up before the old one ends; the health check opens one for its question.
_BESIDE_WORKERS: Final = 2


def check_cap(kind: DatabaseKind, raw: Any, section: DatabaseSection, workers: int) -> None:
    """Raises `ConfigurationError` when so many workers could not all have their connections."""
    if not kind.opens_connections:
        return
    each = 1 + section.stream_connections
    need = workers * each + _BESIDE_WORKERS
    limit = None if section.max_connections is None else (section.max_connections, "database.max_connections")
    allowed = kind.most_connections(raw)
    if allowed is not None and (limit is None or allowed[0] < limit[0]):
        limit = allowed
    if limit is None or need <= limit[0]:
        return
    most, by = limit
    words = "worker opens" if workers == 1 else "workers open"
    streams = section.stream_connections
    fit = max(0, (most - _BESIDE_WORKERS) // each)
    ways_out = [f"workers.processes to {fit} or less"] if fit else []
    if streams and workers + _BESIDE_WORKERS <= most:
        ways_out.append("database.stream_connections to 0 if no handler calls ctx.stream")
    others = "" if allowed is None else ", and higher for whoever else uses the server"
    ways_out.append(f"that limit to {need} or more{others}")
    msg = (
        f"{workers} {words} up to {workers * each} connections to {kind.address} (each its own and "
        f"{streams} for ctx.stream), and {_BESIDE_WORKERS} are wanted beside them (a worker that is being replaced, the "
        f"health check): {need}, but there are {most} ({by}). The service does not start: set {', or '.join(ways_out)}"
    )
    raise ConfigurationError(msg)
