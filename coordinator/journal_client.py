"""`JournalClient`: the endpoints of the journal, as a part of `CoordinatorClient`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from agent.calls import Calls
from coordinator.journal_wire import (
    CheckpointBody,
    DropBody,
    EntriesBody,
    EntryBody,
    GrowthBody,
    ProofBody,
    RotateBody,
    RotationBody,
    ShardBody,
    ShardsBody,
)
from depot.errors import Unreachable

# A million entries.
EXPORT_TIMEOUT_S: Final = 3600.0


class JournalClient:
    """Asks a coordinator about the journal.

    Every method raises Unreachable and Refused.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def entries(self, start: int = 0, **query: str | int) -> AsyncIterator[EntryBody]:
        """What happened, from an index on; asked for a page at a time.

        Args:
            start: the first index.
            query: `artifact`, `sled`, `release`, `kind`, `since`, `limit` (of a page).
        """
        following: int | None = start
        while following is not None:
            url = self._calls.at("v1", "journal", start=following, **query)
            page = await self._calls.ask(EntriesBody, "GET", url)
            for entry in page.items:
                yield entry
            following = page.next_start

    async def entry(self, index: int) -> EntryBody:
        """One entry of the journal."""
        return await self._calls.get(EntryBody, "v1", "journal", str(index))

    async def proof(self, index: int) -> ProofBody:
        """One entry, and the proof that it is in the tree of a checkpoint."""
        return await self._calls.get(ProofBody, "v1", "journal", str(index), "proof")

    async def growth(self, shard: str, first: int, second: int) -> GrowthBody:
        """The proof that a shard was only appended to."""
        at = self._calls.at("v1", "journal", "shards", shard, "growth", first=first, second=second)
        return await self._calls.ask(GrowthBody, "GET", at)

    async def checkpoint(self) -> CheckpointBody:
        """The active shard as it is now, signed."""
        return await self._calls.get(CheckpointBody, "v1", "journal", "checkpoint")

    async def shards(self) -> tuple[ShardBody, ...]:
        """Every shard, the oldest first."""
        return (await self._calls.get(ShardsBody, "v1", "journal", "shards")).items

    async def export(self, shard: str | None = None) -> AsyncIterator[list[bytes]]:
        """All of the journal, or one shard: some lines at a time, each a record for a `Checker`."""
        query = {} if shard is None else {"shard": shard}
        url = self._calls.at("v1", "journal", "export", **query)
        async with self._calls.exchange("GET", url, wait_s=EXPORT_TIMEOUT_S) as response:
            rest = b""
            async for block in response.content.iter_any():
                *lines, rest = (rest + block).split(b"\n")
                yield [line + b"\n" for line in lines]
            if rest:
                raise Unreachable(f"{response.url} breaks off in the middle of a line")

    async def rotate(
        self, ending: str | None = None, *, undo: bool = False, lost_key: bool = False
    ) -> RotationBody:
        """Seal the active shard and go on with a new one, or undo that."""
        url = self._calls.at("v1", "journal", "rotate")
        body = RotateBody(ending=ending, undo=undo, lost_key=lost_key)
        return await self._calls.ask(RotationBody, "POST", url, body)

    async def drop(self, shard: str, size: int, root_hash: str) -> ShardBody:
        """Drop the entries of a sealed shard, of which there is a verified export."""
        url = self._calls.at("v1", "journal", "shards", shard, "drop")
        return await self._calls.ask(
            ShardBody, "POST", url, DropBody(size=size, root_hash=root_hash)
        )
