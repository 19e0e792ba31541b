"""Sending the journal's checkpoints to the sleds, which keep them and let nobody take them back.

Rules kept here:
- The active shard's last checkpoint and the last of the shard before it, which says how that ended.
- A sled that does not answer, refuses, or is older than this keeps nobody else waiting.
- A sled that refuses because it was told something else is a warning each time: `journal verify`
  says which entry it is about. Of a shard that has ended it is one warning: nothing of it will
  change, and after the database was put back it is as it has to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from coordinator.database import sleds
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.journal import checkpointing, shards
from coordinator.journal.values import SignedCheckpoint
from coordinator.values import Sled
from depot.errors import DepotError, Refused

ROUND_S: Final = 60.0
_MAX_ASKED: Final = 16
_TIMEOUT_S: Final = 15.0

_log = structlog.get_logger(__name__)


class Witness(Protocol):
    """The part of a sled's client that is needed."""

    async def put_checkpoint(self, note: str) -> None:
        """Have the sled keep a checkpoint."""


class Witnesses:
    """Tells every sled in service how the journal is, round after round."""

    def __init__(self, database: Database, witness_of: Callable[[Sled], Witness]) -> None:
        self._database = database
        self._witness_of = witness_of
        self._told: dict[str, frozenset[str]] = {}

    async def round(self) -> None:
        """Send what is new to all sleds.

        Raises:
            DatabaseUnavailable.
        """
        notes = [each.note for each in await self._database.run(_newest)]
        known = await self._database.run(sleds.in_service)
        slots = asyncio.Semaphore(_MAX_ASKED)

        async def tell(sled: Sled) -> None:
            async with slots:
                await self._tell(sled, notes)

        await asyncio.gather(*map(tell, known))
        self._told = {sled.id: self._told.get(sled.id, frozenset()) for sled in known}

    async def _tell(self, sled: Sled, notes: Sequence[str]) -> None:
        told = self._told.get(sled.id, frozenset())
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                # One that is refused does not keep it from the next, which is of another shard.
                taken = [
                    note
                    for note in notes
                    if note in told or await self._took(sled, note, ended=note != notes[-1])
                ]
        except (DepotError, TimeoutError) as error:
            _log.debug("a sled did not take a checkpoint", sled=sled.id, error=str(error))
        else:
            self._told[sled.id] = frozenset(taken)

    async def _took(self, sled: Sled, note: str, *, ended: bool) -> bool:
        try:
            await self._witness_of(sled).put_checkpoint(note)
        except Refused as error:
            # An agent of an older version says NotFound.
            level = _log.debug if error.remote_code == "NotFound" else _log.warning
            level("a sled did not take a checkpoint", sled=sled.id, error=str(error))
            return ended and error.remote_code != "NotFound"
        return True


async def _newest(tx: Transaction) -> tuple[SignedCheckpoint, ...]:
    """What is to be told, the older shard first; nothing is said of an empty one."""
    active = await shards.active(tx)
    before = await shards.before(tx, active)
    found = [await checkpointing.latest(tx, each.id) for each in (before, active) if each]
    return tuple(each for each in found if each is not None and each.size)
