"""`ctx.db` on a server: one statement and what its caller wants of it."""

from __future__ import annotations

from functools import partial

from penstock.channels.db.calls import Query, Ran, Want
from penstock.channels.db.rows import Rows
from penstock.channels.db.server.cursors import ServerCursors
from penstock.channels.db.server.driver import USUAL
from penstock.channels.db.server.faults import translated
from penstock.channels.db.server.results import OpenResult
from penstock.channels.db.server.running import Runner, Statement
from penstock.channels.db.server.texts import Texts
from penstock.channels.db.server.transactions import Transactions
from penstock.channels.db.server.work import Work, Works
from penstock.channels.service import Caller
from penstock.errors import DatabaseError


class ServerQueries:
    """Statements with `:name`; what goes wrong is raised as a `DatabaseError` in words."""

    def __init__(
        self,
        texts: Texts,
        runner: Runner,
        works: Works,
        transactions: Transactions,
        cursors: ServerCursors,
        *,
        limit_bytes: int,
    ) -> None:
        self._texts = texts
        self._runner = runner
        self._works = works
        self._transactions = transactions
        self._cursors = cursors
        self._limit_bytes = limit_bytes

    async def run(self, query: Query, want: Want, caller: Caller) -> int | Rows:
        """Answer `execute`, `fetch_all` or `fetch_one`."""
        query = self._begun(query, caller)
        statement = await self._statement(query)
        if statement is None:
            return 0
        run = self._alone if query.transaction is None else self._inside
        try:
            return await self._works.run(caller, partial(run, query, statement, want))
        except Exception as failure:  # noqa: BLE001 - raised again in words
            raise translated(failure, statement.text) from None

    async def stream(self, query: Query, caller: Caller) -> Ran:
        """The first rows; what is left is for `fetch` and `drop`, as a cursor's."""
        query = self._begun(query, caller)
        statement = await self._statement(query, keeps=True)
        assert statement is not None
        try:
            return await self._cursors.open(statement, caller, query.transaction)
        except Exception as failure:  # noqa: BLE001 - raised again in words
            raise translated(failure, statement.text) from None

    async def _alone(self, _query: Query, statement: Statement, want: Want, work: Work) -> int | Rows:
        answer, _ = await self._runner.alone(statement, partial(self._wanted, want=want), work)
        return answer

    async def _inside(self, query: Query, statement: Statement, want: Want, work: Work) -> int | Rows:
        assert query.transaction is not None
        with self._transactions.entered(query.transaction, work.caller) as transaction:
            use = partial(self._wanted, want=want)
            answer, _ = await self._runner.inside(transaction, statement, use, work)
        return answer

    def _begun(self, query: Query, caller: Caller) -> Query:
        if query.transaction is None or query.transaction >= 0:
            return query
        if query.begins:
            self._transactions.begin_chosen(caller, query.transaction, USUAL)
        number = self._transactions.known_as(query.transaction, caller)
        return Query(query.statement, query.parameters, number)

    async def _statement(self, query: Query, *, keeps: bool = False) -> Statement | None:
        given = query.parameters
        is_many = isinstance(given, list)
        if is_many and not given:
            return None
        first = given[0] if is_many else given
        text, has_names = await self._texts.compiled(query.statement, first or {})
        if is_many and not has_names:
            msg = "a list of parameters for a statement that has no :name; nothing was run"
            raise DatabaseError(msg, "ProgrammingError")
        parameters = given if has_names else None
        return Statement(text, parameters, is_many, is_whole=True, keeps=keeps, may_cut=keeps)

    async def _wanted(self, opened: OpenResult, want: Want) -> int | Rows:
        if want == "execute":
            gives_rows = opened.result.columns is not None
            return 0 if gives_rows else max(opened.result.row_count, 0)
        if opened.result.columns is None:
            return Rows([], [])
        if want == "fetch_one":
            return await opened.first_row(self._limit_bytes)
        return await opened.all_rows(self._limit_bytes)
