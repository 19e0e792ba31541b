"""One transaction, as the functions of this package see it.

Rule kept here (F3): whatever changes a row that decides what sleds are to hold raises the
generation in the same transaction, once. There is no other way to write: the connection stays in
here, and the tables cascade nothing.

What is told of a change (`tell`) is written with it, so it is in the journal if and only if the
change was made. That the generation rose is told here, because it rises here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from sqlalchemy import Delete, Insert, Row, Select, Update, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from coordinator.database.calls import Calls
from coordinator.database.journal_tables import journal_artifacts, journal_told
from coordinator.database.tables import DECIDE_WHAT_IS_WANTED, generation
from coordinator.database.telling import written
from coordinator.values import Told

GENERATION_RAISED: Final = "fleet.generation_raised"
ROWS_AT_ONCE: Final = 1000
"""All there are have come by then; what takes time is to make values of them."""


class Transaction:
    """Reads and writes rows until `Database.run` commits or rolls back."""

    def __init__(
        self, connection: AsyncConnection, calls: Calls, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection = connection
        self._calls = calls
        self._clock = clock
        self._raised = False

    @property
    def now_s(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def rows(
        self, query: Select[Any], values: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Read all rows of a query; `values` are those that it has names for."""
        return [row async for some in self.batches(query, values) for row in some]

    async def batches(
        self, query: Select[Any], values: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Sequence[Row[Any]]]:
        """Read the rows of a query some at a time: others have their turn on the event loop."""
        result = await self._calls(self._connection.execute(query, values))
        for some in result.partitions(ROWS_AT_ONCE):
            yield some
            if len(some) == ROWS_AT_ONCE:
                await asyncio.sleep(0)

    async def first(
        self, query: Select[Any], values: Mapping[str, Any] | None = None
    ) -> Row[Any] | None:
        """Read the first row of a query; `values` are those that it has names for."""
        result = await self._calls(self._connection.execute(query, values))
        found: Row[Any] | None = result.first()
        return found

    async def write(
        self,
        statement: Insert | Update | Delete,
        rows: Iterable[Mapping[str, Any]] | None = None,
    ) -> int:
        """Change rows, and return how many; with `rows`, once for each of them.

        With `rows` some drivers cannot count, and return -1. No rows at all are no change. They are
        taken some at a time, so that others have their turn on the event loop, also while what
        makes them works.
        """
        if rows is None:
            return await self._change(statement, None)
        changed, left = 0, iter(rows)
        while some := list(islice(left, ROWS_AT_ONCE)):
            counted = await self._change(statement, some)
            changed = -1 if -1 in (changed, counted) else changed + counted
            await asyncio.sleep(0)
        return changed

    async def _change(
        self, statement: Insert | Update | Delete, rows: Sequence[Mapping[str, Any]] | None
    ) -> int:
        changed = (await self._calls(self._connection.execute(statement, rows))).rowcount
        if changed and statement.table in DECIDE_WHAT_IS_WANTED:
            await self._raise_generation()
        return changed

    async def tell(self, *told: Told) -> None:
        """Say for the journal what this transaction does."""
        rows = written(told, self.now_s)
        await self.write(insert(journal_told), rows.told)
        await self.write(insert(journal_artifacts), rows.artifacts)

    async def _raise_generation(self) -> None:
        if not self._raised:
            self._raised = True
            rising = update(generation).values(value=generation.c.value + 1)
            await self._calls(self._connection.execute(rising))
            row = await self.first(select(generation.c.value))
            assert row is not None, "the migrations make the row"
            await self.tell(Told(GENERATION_RAISED, data={"generation": row.value}))
