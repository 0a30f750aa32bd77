"""A real database server, an empty database on it, and the channel's services to it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pymysql

from penstock.channels.db.local import LocalDatabase
from penstock.channels.db.service import DatabaseService
from penstock.config.database import DatabaseSection
from tests.channels.conftest import FRAME_BYTES, local
from tests.servers import Server, name_in

#: Who looks at InnoDB's list of transactions more often than ten times a second sees the same list for ever.
SLOWLY_S = 0.15
KINDS = ("mariadb", "postgresql")
SLEEP = {"mariadb": "SELECT sleep(60)", "postgresql": "SELECT pg_sleep(60)"}

#: What leaves something, what asks for it, and how that is before; by database. Of its own connection each asks: one that was
#: closed just now the server may still have.
LEFT: dict[str, list[tuple[str, str, object]]] = {
    "mariadb": [
        # There it is another word for SESSION.
        ("SET LOCAL lock_wait_timeout = 77", "SELECT @@lock_wait_timeout = 77", 0),
        ("SELECT 1 INTO @n", "SELECT @n IS NOT NULL", 0),
        *(
            (statement, "SELECT @@lock_wait_timeout = 77", 0)
            for statement in (
                "SET @a = 1, SESSION lock_wait_timeout = 77",
                "set @@session.lock_wait_timeout = 77",
                "SET STATEMENT max_statement_time = 9 FOR SET SESSION lock_wait_timeout = 77",
            )
        ),
        *(
            (statement, "SELECT @n IS NOT NULL", 0)
            for statement in (
                "SELECT (@n := 1)",
                "SELECT 1, 2 INTO @m, @n",
                "SELECT count(@n := TABLE_NAME) FROM information_schema.TABLES",
                "DO @n := 1",
            )
        ),
        *(
            (statement, "SELECT IS_USED_LOCK('penstock-left') = CONNECTION_ID()", None)
            for statement in ("SELECT GET_LOCK('penstock-left', 5)", "DO get_lock/**/('penstock-left', 5)")
        ),
        ("USE information_schema", "SELECT DATABASE() = 'information_schema'", 0),
        ("EXECUTE IMMEDIATE 'SET SESSION lock_wait_timeout = 77'", "SELECT @@lock_wait_timeout = 77", 0),
        ("BEGIN NOT ATOMIC SET SESSION lock_wait_timeout = 77; END", "SELECT @@lock_wait_timeout = 77", 0),
        ("IF 1 THEN SET SESSION lock_wait_timeout = 77; END IF", "SELECT @@lock_wait_timeout = 77", 0),
        ("/*M! SET SESSION lock_wait_timeout = 77 */", "SELECT @@lock_wait_timeout = 77", 0),
        ("SET LOCAL lock_wait_timeout = 77", "SELECT @@lock_wait_timeout = 77", 0),
        ("GET DIAGNOSTICS @n = NUMBER", "SELECT @n IS NOT NULL", 0),
        ("SELECT LAST_INSERT_ID(77)", "SELECT LAST_INSERT_ID()", 0),
    ],
    "postgresql": [
        *(
            (
                statement,
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
                0,
            )
            for statement in (
                "SELECT pg_advisory_lock_shared(4711)",
                "SELECT pg_try_advisory_lock_shared(4711)",
                "EXPLAIN ANALYZE SELECT pg_advisory_lock(4711)",
            )
        ),
        *(
            (statement, "SELECT current_setting('work_mem')", "4MB")
            for statement in (
                "SELECT 1; SET work_mem = '8MB'",
                "SET LOCAL lock_timeout = 5; SET work_mem = '8MB'",
                "set local lock_timeout = 5;/* ; */ set work_mem = '8MB'",
                "SET TRANSACTION READ WRITE; -- why\nSET SESSION work_mem TO '8MB'",
                "SET CONSTRAINTS ALL DEFERRED; RESET lock_timeout; SET work_mem = '8MB'",
                "SELECT set_config('work_mem', '8MB', false)",
                "SELECT set_config('work_mem', '7MB', true), set_config('work_mem', '8MB', false)",
                "SELECT set_config('work_mem', '8MB', 'a' = ', true)')",
                "WITH s AS (SELECT set_config('work_mem', '8MB', 1 = 2)) SELECT * FROM s",
                "DO $$ BEGIN SET work_mem = '8MB'; END $$",
                "UPDATE pg_settings SET setting = '8192' WHERE name = 'work_mem'",
                "update only pg_catalog.pg_settings SET setting = '8192' WHERE name = 'work_mem'",
            )
        ),
        (
            "SELECT 1; PREPARE mine AS SELECT 1",
            "SELECT count(*) FROM pg_prepared_statements WHERE from_sql",
            0,
        ),
        *(
            (
                statement,
                "SELECT count(*) FROM pg_class WHERE relname = 'mine' AND relnamespace = pg_my_temp_schema()",
                0,
            )
            for statement in (
                "SELECT 1; CREATE TEMP TABLE mine (id INTEGER)",
                "CREATE TABLE pg_temp.mine (id INTEGER)",
                "CREATE TEMP TABLE other (id INTEGER) ON COMMIT DROP; CREATE TEMP TABLE mine (id INTEGER)",
                "CREATE TEMP TABLE mine AS SELECT 'ON COMMIT DROP' AS words",
                "EXPLAIN ANALYZE CREATE TEMP TABLE mine AS SELECT 1",
            )
        ),
        (
            "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS $$SELECT 1; SELECT 2$$",
            "SELECT count(*) FROM pg_proc WHERE proname = 'mine' AND pronamespace = pg_my_temp_schema()",
            0,
        ),
    ],
}


class Case:
    """One server, an empty database on it, and services of a test's choice."""

    def __init__(self, kind: str, server: Server, url: str) -> None:
        self.kind = kind
        self.server = server
        self.url = url
        self.made: list[DatabaseService] = []

    async def service(self, *, frame_bytes: int = FRAME_BYTES, **settings: Any) -> DatabaseService:
        section = DatabaseSection.model_validate({"url": self.url, **settings})
        self.made.append(DatabaseService(section, frame_bytes=frame_bytes))
        await self.made[-1].start()
        return self.made[-1]

    async def db(self, **settings: Any) -> LocalDatabase:
        """A caller, and a table `t (id, v UNIQUE)`."""
        db = local(await self.service(**settings))
        await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200) UNIQUE)")
        return db

    def rows(self, statement: str) -> list[Any]:
        """What others see."""
        return self.server.execute(statement, url=self.url)

    def sleeping(self) -> bool:
        """True while a statement of `SLEEP` runs."""
        lists = {
            "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%sleep(60)' AND user = 'penstock'",
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
        }
        return self.rows(lists[self.kind]) != [(0,)]

    def connect(self) -> Any:
        """The plain driver."""
        return self.server._connect(name_in(self.url))

    def connections(self) -> int:
        return len(self.server.connections(self.url))

    def kill_connections(self) -> None:
        """Ends all that there are, from the server's side."""
        for number in self.server.connections(self.url):
            # Of those that looked at the tables for a test one may just be going.
            with suppress(pymysql.MySQLError, psycopg.Error):
                self.server.kill_connection(number)

    def at_work(self) -> int:
        """How many connections run a statement, or have a transaction open."""
        lists = {
            "mariadb": "SELECT (SELECT count(*) FROM information_schema.innodb_trx) + (SELECT count(*) FROM "
            "information_schema.processlist WHERE db = DATABASE() AND command = 'Query' AND id <> CONNECTION_ID())",
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle' "
            "AND pid <> pg_backend_pid()",
        }
        [(count,)] = self.rows(lists[self.kind])
        return int(count)

    def waits_for_locks(self) -> int:
        """How many statements wait for another one's lock."""
        lists = {
            "mariadb": "SELECT count(*) FROM information_schema.innodb_lock_waits",
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
        }
        [(count,)] = self.rows(lists[self.kind])
        return int(count)

    def is_stuck(self) -> bool:
        """True while the server has rows to send to somebody who does not read them."""
        lists = {
            "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND state = 'Writing to net'",
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'",
        }
        return self.rows(lists[self.kind]) != [(0,)]


async def service_with_table(case: Case, **settings: Any) -> DatabaseService:
    """A service, and a table `t (id, v UNIQUE)`."""
    service = await case.service(**settings)
    case.rows("CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200) UNIQUE)")
    return service
