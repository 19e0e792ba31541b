"""The database: opened and migrated once, and then transactions, each run until it succeeds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.database.calls import Calls, at_once, to_its_end
from coordinator.database.engine import make_engine, parse_url
from coordinator.database.migrating import migrate
from coordinator.database.retrying import until_done
from coordinator.database.transaction import Transaction

_P = ParamSpec("_P")
_T = TypeVar("_T")
PATIENCE_S: Final = 15.0


class Database:
    """An open database; closed with `async with`, or `close`."""

    def __init__(self, engine: AsyncEngine, *, patience_s: float, rng: random.Random) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._rng = rng
        self._calls: Calls = to_its_end if engine.dialect.name == "sqlite" else at_once

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        patience_s: float = PATIENCE_S,
        rng: random.Random | None = None,
        restoring: bool = False,
    ) -> Self:
        """Connect to a database, and bring its schema up to this program's.

        Args:
            url: as SQLAlchemy writes it, of SQLite (a file) or PostgreSQL.
            patience_s: how long a transaction is tried for, against others that are in its way.
            rng: for the back-off.
            restoring: also when a restore of it was begun and not ended.

        Raises:
            DatabaseUnavailable: it cannot be reached, a newer program migrated it, or a restore of
                it was not ended.
        """
        parsed, rng = parse_url(url), rng or random.Random()
        await migrate(parsed, patience_s=patience_s, rng=rng, restoring=restoring)
        # In a thread: it imports the driver, and looks where a relative path leads.
        engine = await asyncio.to_thread(make_engine, parsed, patience_s)
        return cls(engine, patience_s=patience_s, rng=rng)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def run(
        self,
        work: Callable[Concatenate[Transaction, _P], Awaitable[_T]],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Run `work(tx, ...)` in a transaction of its own and commit; what it raises rolls back.

        It runs again when another transaction was in the way, so it must do nothing but read and
        write rows, and work its result out anew. It must not call `run`: SQLite has one connection.
        Whoever is cancelled does not know whether it was committed; it is one or the other, and
        nothing of it is left in anybody's way.

        Raises:
            DatabaseUnavailable: the database cannot be used, or others are in the way for too long.
            InvalidRequest: a value is one that the database cannot hold.
        """

        async def once() -> _T:
            async with self._transaction() as tx:
                return await work(tx, *args, **kwargs)

        return await until_done(once, patience_s=self._patience_s, rng=self._rng)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        """Begin, and commit unless the block raises; whoever is cancelled has rolled back."""
        connection = self._engine.connect()
        try:
            await self._calls(connection.start())
            await self._calls(connection.begin().start())
            yield Transaction(connection, self._calls)
            await self._calls(connection.commit())
        finally:
            if connection.sync_connection is not None:
                await self._calls(connection.close())
