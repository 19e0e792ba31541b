"""Gathering what happened on the sleds, from the log that each of them keeps.

Rules kept here:
- What is told and up to where that comes are written in one transaction, and only if nobody else
  has come further meanwhile: several coordinators may ask the same sled.
- Up to where that comes is not signed. Whoever moves it back has an entry made of that, and
  nothing told twice: the entries themselves say what was told.
- A log is one sled's. Where it was told of under another sled that is in service, the machine at
  this address is that one: nothing it says is told as if this one had said it.
- A sled that does not answer keeps nobody else waiting, and is asked again after a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import structlog
from sqlalchemy import func, insert, select, update

from agent.wire.events import EventsBody
from coordinator.database import sleds
from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_cursors, journal_entries, journal_told
from coordinator.database.transaction import Transaction
from coordinator.errors import DatabaseUnavailable
from coordinator.journal.gathered import Cursor, Gathered, gathered, gone_back, returns_of
from coordinator.journal.values import LogEnd
from coordinator.values import Sled, SledPolicy
from depot.errors import DepotError

PAGE: Final = 500
MAX_PAGES: Final = 20
"""Of one sled in a round: the others wait no longer."""
_MAX_ASKED: Final = 16
_TIMEOUT_S: Final = 15.0
_LATER_S: Final = 60.0

_log = structlog.get_logger(__name__)


class EventSource(Protocol):
    """The part of a sled's client that is needed."""

    async def events(
        self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
    ) -> EventsBody:
        """Events numbered above `after`, oldest first."""


class Gatherer:
    """Asks every sled in service what happened, round after round."""

    def __init__(self, database: Database, source_of: Callable[[Sled], EventSource]) -> None:
        self._database = database
        self._source_of = source_of
        self._not_before_s: dict[str, float] = {}

    async def round(self) -> None:
        """Ask all sleds once, and tell what is new.

        Raises:
            DatabaseUnavailable.
        """
        now_s = asyncio.get_running_loop().time()
        asked = [
            sled
            for sled in await self._database.run(sleds.in_service)
            if self._not_before_s.get(sled.id, 0.0) <= now_s
        ]
        slots = asyncio.Semaphore(_MAX_ASKED)

        async def ask(sled: Sled) -> None:
            async with slots:
                await self._ask(sled)

        # Whoever still asks when the database is away for one of them ends with the round, too.
        for error in await asyncio.gather(*map(ask, asked), return_exceptions=True):
            if error is not None:
                raise error

    async def _ask(self, sled: Sled) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._gather(sled)
        except DatabaseUnavailable:
            raise
        except (DepotError, TimeoutError) as error:
            self._not_before_s[sled.id] = asyncio.get_running_loop().time() + _LATER_S
            _log.debug("a sled did not say what happened", sled=sled.id, error=str(error))
        else:
            self._not_before_s.pop(sled.id, None)

    async def _gather(self, sled: Sled) -> None:
        source = self._source_of(sled)
        # Which log it keeps is not known before it has answered once.
        after = await self._database.run(_last_told, sled.id)
        for _ in range(MAX_PAGES):
            page = await source.events(after, limit=PAGE)
            cursor = await self._database.run(_cursor, sled.id, page.epoch)
            if cursor is None:
                _log.warning("another sled answers at its address", sled=sled.id)
                return
            # Another log than was thought, or one that began anew; or others were told more of it
            # since it answered, which it has if it is asked again.
            if cursor.sequence < after or page.latest < cursor.sequence:
                page = await source.events(cursor.sequence, limit=PAGE)
            if page.epoch != cursor.epoch:
                return
            if page.latest < cursor.sequence:
                await self._go_back(source, cursor, page)
                return
            new = await asyncio.to_thread(gathered, cursor, page)
            if new.told:
                new = await self._told(cursor, page, new)
            if len(page.events) < PAGE:
                return
            after = new.sequence

    async def _go_back(self, source: EventSource, cursor: Cursor, page: EventsBody) -> None:
        _log.warning("a sled lost events that were told", sled=cursor.sled_id, log=cursor.log)
        told_to_s = await self._database.run(_told_to_s, cursor)
        last = await source.events(max(0, page.latest - PAGE), limit=PAGE)
        if (last.epoch, last.latest < cursor.sequence) == (cursor.epoch, True):
            new = await asyncio.to_thread(gone_back, cursor, last, told_to_s)
            await self._database.run(_tell, cursor, new)

    async def _told(self, cursor: Cursor, page: EventsBody, new: Gathered) -> Gathered:
        """Tell what is new, but for what the journal has; what was."""
        # In a transaction that writes nothing, so that it is in the way of none that numbers.
        told_to = await self._database.run(_told_to, cursor)
        if told_to > cursor.sequence:
            new = await asyncio.to_thread(gathered, cursor, page, told_to)
        if await self._database.run(_tell, cursor, new) and told_to > cursor.sequence:
            _log.warning("events counted as untold that were told", sled=cursor.sled_id)
        return new


async def log_ends(tx: Transaction) -> tuple[LogEnd, ...]:
    """Up to where the database says that the sleds' logs are told."""
    its = journal_cursors.c
    rows = await tx.rows(select(journal_cursors).order_by(its.sled_id, its.epoch))
    return tuple(LogEnd(row.sled_id, row.epoch, row.sequence) for row in rows)


async def _last_told(tx: Transaction, sled_id: str) -> int:
    """The number in the log that was told of last; any other one is noticed when it answers."""
    its = select(journal_cursors).where(journal_cursors.c.sled_id == sled_id)
    row = await tx.first(its.order_by(journal_cursors.c.time.desc()).limit(1))
    return 0 if row is None else int(row.sequence)


async def _cursor(tx: Transaction, sled_id: str, epoch: str) -> Cursor | None:
    """Up to where a log is told; None when it is that of another sled."""
    other_log = False
    found = Cursor(sled_id, epoch)
    for row in await tx.rows(
        select(journal_cursors).where(
            journal_cursors.c.epoch.startswith(epoch, autoescape=True)
            | (journal_cursors.c.sled_id == sled_id)
        )
    ):
        returns = returns_of(row.epoch, epoch)
        if returns is None:
            other_log = other_log or row.sled_id == sled_id
        elif row.sled_id == sled_id or not await _in_service(tx, row.sled_id):
            # It may be a sled that has another id now: what was told under the old one was told.
            last = max((found.returns, found.sequence), (returns, row.sequence))
            found = replace(found, returns=last[0], sequence=last[1])
        else:
            return None
    return replace(found, other_log=other_log)


async def _told_to(tx: Transaction, cursor: Cursor) -> int:
    """The highest number in a log that the journal has, or is about to have."""
    highest = 0
    for its in (journal_told.c, journal_entries.c):
        query = select(func.max(its.sequence).label("highest"))
        row = await tx.first(query.where(its.sled_id == cursor.sled_id, its.epoch == cursor.log))
        highest = max(highest, (row and row.highest) or 0)
    return highest


async def _told_to_s(tx: Transaction, cursor: Cursor) -> float | None:
    """When that happened which was told last of a log."""
    for its in (journal_told.c, journal_entries.c):
        of_it = (its.sled_id == cursor.sled_id, its.epoch == cursor.log)
        row = await tx.first(select(its.time).where(*of_it, its.sequence == cursor.sequence))
        if row is not None:
            return float(row.time)
    return None


async def _tell(tx: Transaction, cursor: Cursor, new: Gathered) -> bool:
    """Tell it, unless somebody else has; whether it was told."""
    now = await _cursor(tx, cursor.sled_id, cursor.epoch)
    if now is None or (now.log, now.sequence) != (cursor.log, cursor.sequence):
        return False
    await tx.tell(*new.told)
    its = (journal_cursors.c.sled_id == cursor.sled_id, journal_cursors.c.epoch == new.log)
    values = {"sequence": new.sequence, "time": tx.now_s}
    if not await tx.write(update(journal_cursors).where(*its).values(**values)):
        key = {"sled_id": cursor.sled_id, "epoch": new.log}
        await tx.write(insert(journal_cursors).values(**key, **values))
    return True


async def _in_service(tx: Transaction, sled_id: str) -> bool:
    known = {sled.id: sled for sled in await sleds.every(tx)}.get(sled_id)
    return known is not None and known.policy is SledPolicy.IN_SERVICE
