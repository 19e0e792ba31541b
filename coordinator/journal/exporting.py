"""A journal as a file: records that `checking` takes, each a line of JSON.

Shards, oldest first: each with its checkpoints and then its entries, and a record that says that
nothing is missing behind it, and, of a whole journal, up to where the sleds' events count as told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.journal import checkpointing, filing, reading, shards
from coordinator.journal.checking import FORMAT
from coordinator.journal.values import Entry, LogEnd, Shard, SignedCheckpoint

PAGE: Final = 500


async def records(
    database: Database, shard_id: str | None = None, told: Sequence[LogEnd] = ()
) -> AsyncIterator[dict[str, Any]]:
    """Everything, or one shard, as it was when its turn came.

    Args:
        database: where it is.
        shard_id: only this one.
        told: up to where events were told before the journal was asked for.

    Raises:
        EntryNotFound: there is no such shard.
    """
    wanted = await database.run(_ids, shard_id)
    yield {"format": FORMAT}
    for each in wanted:
        shard, signed = await database.run(_shard, each)
        yield {"shard": _said(shard)}
        for checkpoint in signed:
            yield {"checkpoint": {"size": checkpoint.size, "note": checkpoint.note}}
        async for entry in _entries(database, shard):
            yield entry
    end: dict[str, Any] = {"shards": len(wanted)}
    yield {"end": end if shard_id else {**end, "told": list(map(asdict, told))}}


async def _entries(database: Database, shard: Shard) -> AsyncIterator[dict[str, Any]]:
    begin = 0
    while shard.dropped_s is None:
        found, misfiled = await database.run(_page, shard, begin)
        for entry in found:
            # It may have come since the shard was read. If not, nobody appended it.
            if entry.position >= shard.size:
                now = await database.run(shards.get, shard.id)
                if entry.position < now.size:
                    return
            yield {"entry": _told(entry, misfiled.get(entry.position, ()))}
        if not found:
            return
        begin = found[-1].position + 1


async def _page(
    tx: Transaction, shard: Shard, begin: int
) -> tuple[list[Entry], Mapping[int, tuple[str, ...]]]:
    end = await filing.few(tx, shard.id, begin, PAGE)
    # Of positions, not of entries: there are fewer where some are missing.
    found = [
        entry
        for entry in await reading.of_shard(tx, shard, begin, min(PAGE, end - begin))
        if entry.position < end
    ]
    return found, await filing.misfiled(tx, shard.id, begin, end)


def _told(entry: Entry, misfiled: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "position": entry.position,
        "leaf": entry.leaf.hex(),
        "content": entry.content,
    }
    return {**told, "misfiled": list(misfiled)} if misfiled else told


async def _ids(tx: Transaction, shard_id: str | None) -> tuple[str, ...]:
    if shard_id is not None:
        return ((await shards.get(tx, shard_id)).id,)
    return tuple(shard.id for shard in await shards.every(tx))


async def _shard(tx: Transaction, shard_id: str) -> tuple[Shard, tuple[SignedCheckpoint, ...]]:
    return await shards.get(tx, shard_id), await checkpointing.every(tx, shard_id)


def _said(shard: Shard) -> dict[str, Any]:
    return {
        "id": shard.id,
        "ordinal": shard.ordinal,
        "first_index": shard.first_index,
        "state": shard.state.value,
        "size": shard.size,
        "root_hash": shard.edge.root.hex(),
        "verifier_key": str(shard.key),
        "created": shard.created_s,
        "sealed": shard.sealed_s,
        "dropped": shard.dropped_s,
    }
