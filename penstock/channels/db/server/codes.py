"""What the error codes of database servers mean: PostgreSQL's are SQLSTATEs, those of MySQL and MariaDB are numbers."""

from __future__ import annotations

from typing import Final

#: Serialization failure, deadlock, lock not available: another transaction was in the way.
CONFLICT_STATES: Final = frozenset({"40001", "40P01", "55P03"})
#: Disk full, out of memory: it may pass.
BUSY_STATES: Final = frozenset({"53100", "53200"})
#: What ends a session: shut down, crashed, starting up, idle too long, in a transaction too long; class 08 does, too.
LOST_STATES: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"})

LOCK_TIMEOUT: Final = 1205
DEADLOCK: Final = 1213
#: Changed since it was read (MariaDB's innodb_snapshot_isolation).
_CHANGED: Final = 1020
_LOCK_TABLE_FULL: Final = 1206
#: With these InnoDB undoes the whole transaction, savepoints too, and the next statement begins another one; with
#: `LOCK_TIMEOUT` where the server is set so.
UNDOING_CODES: Final = frozenset({DEADLOCK, _CHANGED, _LOCK_TABLE_FULL})
#: The last is NOWAIT.
CONFLICT_CODES: Final = frozenset({LOCK_TIMEOUT, DEADLOCK, _CHANGED, 3572})
#: Disk full, table full.
BUSY_CODES: Final = frozenset({1021, 1114})
#: The driver's own: the server went away amid an answer.
LOST: Final = 2013
#: What ends a session: gone away, lost, killed, shut down, idle too long.
LOST_CODES: Final = frozenset({1053, 1927, 2006, LOST, 2014, 2045, 2055, 3169, 4031})
