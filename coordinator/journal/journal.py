"""The journal of a fleet: what happened, numbered and proved, while its shards roll over.

Each method is one transaction, or some that can each be done again. Nothing is remembered of the
database from one to the next: whoever finds a shard sealed reads which one is active now.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import structlog

from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.errors import EntryNotFound, JournalKeyMissing, NoShard
from coordinator.journal import checkpointing, dropping, exporting, reading, rotating, shards
from coordinator.journal.appending import NUMBERED_AT_ONCE, append, number
from coordinator.journal.gathering import log_ends
from coordinator.journal.keys import KeyDirectory
from coordinator.journal.notes import SignerKey
from coordinator.journal.restores import DATABASE_RESTORED, Restore
from coordinator.journal.values import (
    EVERYTHING,
    Entry,
    Growth,
    Proof,
    Rotation,
    Shard,
    SignedCheckpoint,
    Wanted,
)
from coordinator.values import Told
from depot.errors import InvalidRequest

_SHARD_ID_BYTES: Final = 8

_log = structlog.get_logger(__name__)


class Journal:
    """The journal, as one coordinator works on it; made by `open`."""

    def __init__(
        self, database: Database, keys: KeyDirectory, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._keys = keys
        self._clock = clock
        self._signers: dict[str, SignerKey] = {}
        # Two of one coordinator would only be in each other's way.
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def open(
        cls, database: Database, keys: Path, *, clock: Callable[[], float] = time.time
    ) -> Self:
        """Open the journal, and begin it when nobody has.

        Raises:
            DatabaseUnavailable.
            OSError: the first key cannot be written.
        """
        journal = cls(database, KeyDirectory(keys), clock=clock)
        try:
            await database.run(shards.active)
        except NoShard:
            await journal._begin()
        return journal

    # ---- appending

    async def number(self) -> int:
        """Give all that was told its place; how many entries that were."""
        async with self._one_at_a_time:
            return await self._number()

    async def rotate(self, ending: str | None = None, *, lost_key: bool = False) -> Rotation:
        """Seal the active shard and go on with a new one; an empty one is not sealed.

        Args:
            ending: the id of the shard that is to be sealed; when it is sealed already, nothing is
                done. None: whichever is active now.
            lost_key: its key is lost for good, so seal it without a last checkpoint.

        Raises:
            InvalidRequest: its key is said to be lost, and is here.
            JournalKeyMissing: its last checkpoint cannot be signed here.
            DatabaseUnavailable: it may be done or not; say it again with `ending`.
            OSError: the new key cannot be written.
        """
        async with self._one_at_a_time:
            await self._number()  # what was told before belongs in the shard that ends
            active, earlier = await self._database.run(_newest)
            if ending not in (None, active.id) or not (active.size or lost_key):
                return Rotation(False, active, earlier)
            signer = None
            if lost_key:
                await self._require_lost(active.id)
            else:
                signer = await self._signer(active.id)
            next_id, key = await self._new_key()
            made = await self._database.run(
                rotating.rotate, active.id, signer, next_id, key.verifier, self._clock()
            )
        if not made.done:
            await asyncio.to_thread(self._keys.discard, next_id)
            return made
        self._signers[next_id] = key
        assert made.sealed is not None
        _log.info("shard sealed", shard=made.sealed.id, entries=made.sealed.size, next=next_id)
        return made

    async def note_restore(self, lost: Mapping[str, int]) -> Rotation:
        """Go on after the database was put back: in a new shard, for ever apart from what is lost.

        Before anything else is told. Nobody can undo it.

        Args:
            lost: by shard, how many entries it is known to have had.

        Raises:
            DatabaseUnavailable.
            OSError: the new key cannot be written.
        """
        active, _ = await self._database.run(_newest)
        restore = Restore(active.id, active.size, lost)
        await self.number()  # what the copy has been told comes first: nothing is behind it
        told = Told(DATABASE_RESTORED, data=restore.data)
        await self._database.run(lambda tx: tx.tell(told))
        made = await self.rotate(active.id, lost_key=not await self._has_key(active.id))

        async def open_next(tx: Transaction) -> None:
            await append(tx, await shards.active(tx, for_update=True), (), self._clock())

        await self._database.run(open_next)
        return made

    async def undo_rotation(self) -> Rotation:
        """Go on with the shard that was just sealed.

        Raises:
            ShardInUse: the new one has entries.
        """
        async with self._one_at_a_time:
            made = await self._database.run(rotating.undo, self._clock())
        _log.info("shard active again", shard=made.active.id)
        return made

    async def drop(self, shard_id: str, size: int, root: bytes) -> Shard:
        """Drop the entries of a sealed shard, which an export has; it may be said again.

        Args:
            shard_id: which.
            size: how many entries the export has.
            root: the hash of their tree.

        Raises:
            EntryNotFound: there is no such shard.
            InvalidRequest: it is another one than the export's.
            ShardInUse: it takes entries, or its end is not signed.
        """
        await self.number()  # what was told before comes first
        # It is sealed, so that nobody need wait while it is gone through.
        said = await self._database.run(dropping.said_in, shard_id)
        dropped = await self._database.run(dropping.drop, shard_id, size, root, said, self._clock())
        _log.info("shard dropped", shard=shard_id, entries=size)
        return dropped

    async def delete_dropped(self) -> bool:
        """Delete some of what dropped shards have left; False: there was nothing."""
        return await self._database.run(dropping.delete_some)

    async def standing(self) -> tuple[Shard, SignedCheckpoint | None]:
        """The active shard, and its last checkpoint."""

        async def read(tx: Transaction) -> tuple[Shard, SignedCheckpoint | None]:
            active = await shards.active(tx)
            return active, await checkpointing.latest(tx, active.id)

        return await self._database.run(read)

    async def sign(self, shard_id: str) -> SignedCheckpoint:
        """A shard as it is now, signed; written down unless it is already.

        Raises:
            JournalKeyMissing: its key is not here.
        """
        signer = await self._signer(shard_id)

        async def note(tx: Transaction) -> SignedCheckpoint:
            shard = await shards.get(tx, shard_id)
            return await checkpointing.note_checkpoint(tx, shard, signer, self._clock())

        return await self._database.run(note)

    # ---- reading

    async def shards(self) -> tuple[Shard, ...]:
        """All shards, the oldest first, with all that was told before this was called."""
        await self.number()
        return await self._database.run(shards.every)

    async def entries(
        self, start: int, limit: int, wanted: Wanted = EVERYTHING
    ) -> tuple[Entry, ...]:
        """Entries from an index on, with all that was told before this was called."""
        await self.number()
        return await self._database.run(reading.page, start, limit, wanted)

    async def entry(self, index: int) -> Entry:
        """One entry.

        Raises:
            EntryNotFound, ShardDropped.
        """
        await self.number()

        async def read(tx: Transaction) -> Entry:
            return await reading.entry(tx, await shards.holding(tx, index), index)

        return await self._database.run(read)

    async def proof(self, index: int, size: int | None = None) -> Proof:
        """An entry, and the proof that it is in its shard as that was at a checkpoint.

        Args:
            index: in the journal.
            size: prove it for a shard of this size, of which somebody has a checkpoint.

        Raises:
            EntryNotFound, ShardDropped.
            InvalidRequest: the entry is not in the shard of this size.
            JournalKeyMissing: no checkpoint covers it, and none can be signed here.
        """
        with suppress(EntryNotFound):
            # Who asks for what happened long ago need not wait until all else is numbered.
            if (found := await self._database.run(reading.proof, index, size)) is not None:
                return found
        await self.number()
        found = await self._database.run(reading.proof, index, size)
        if found is None:
            await self.sign((await self._database.run(shards.holding, index)).id)
            found = await self._database.run(reading.proof, index, size)
            assert found is not None, "it was just signed"
        return found

    async def growth(self, shard_id: str, first: int, second: int | None = None) -> Growth:
        """The proof that a shard was only appended to since it had `first` entries.

        Raises:
            EntryNotFound, ShardDropped, InvalidRequest.
        """
        return await self._database.run(reading.growth, shard_id, first, second)

    async def checkpoint(self) -> tuple[Shard, SignedCheckpoint]:
        """The active shard as it is now, signed; where it cannot be, as it was signed last.

        Raises:
            JournalKeyMissing: it was never signed, and cannot be here.
        """
        await self.number()
        active = await self._database.run(shards.active)
        try:
            return active, await self.sign(active.id)
        except JournalKeyMissing:
            known = await self._database.run(checkpointing.latest, active.id)
            if known is None:
                raise
            return active, known

    async def export(self, shard_id: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Everything, or one shard, as records that a `Checker` takes.

        Raises:
            EntryNotFound: there is no such shard.
        """
        # First: all that counts as told by now is numbered below, and so among the entries.
        told = await self._database.run(log_ends)
        await self.number()
        async for record in exporting.records(self._database, shard_id, told):
            yield record

    # ----

    async def _number(self) -> int:
        numbered = 0
        while True:
            some = await self._database.run(number, self._clock())
            numbered += some
            if some < NUMBERED_AT_ONCE:
                return numbered

    async def _signer(self, shard_id: str) -> SignerKey:
        if shard_id not in self._signers:
            self._signers[shard_id] = await asyncio.to_thread(self._keys.load, shard_id)
        return self._signers[shard_id]

    async def _require_lost(self, shard_id: str) -> None:
        if await self._has_key(shard_id):
            raise InvalidRequest(f"the key of shard {shard_id} is here, and not lost")

    async def _has_key(self, shard_id: str) -> bool:
        try:
            await self._signer(shard_id)
        except JournalKeyMissing:
            return False
        return True

    async def _new_key(self) -> tuple[str, SignerKey]:
        shard_id = secrets.token_hex(_SHARD_ID_BYTES)
        key = await asyncio.to_thread(self._keys.make, shard_id, shards.origin(shard_id))
        return shard_id, key

    async def _begin(self) -> None:
        shard_id, key = await self._new_key()

        async def begin(tx: Transaction) -> bool:
            if await shards.every(tx):
                return False  # another coordinator was first
            await shards.add(tx, rotating.first_shard(shard_id, key.verifier, self._clock()))
            return True

        if await self._database.run(begin):
            _log.info("journal begun", shard=shard_id)
        else:
            await asyncio.to_thread(self._keys.discard, shard_id)


async def _newest(tx: Transaction) -> tuple[Shard, Shard | None]:
    active = await shards.active(tx)
    return active, await shards.before(tx, active)
