"""Try handlers without a broker: `run` and `Worker` one message at a time, `embedded_service` a whole service.

Neither reads settings or the environment.
"""

from penstock.testing.result import Result, Sent
from penstock.testing.service import RunningService, embedded_service
from penstock.testing.worker import Worker, run

__all__ = ["Result", "RunningService", "Sent", "Worker", "embedded_service", "run"]
