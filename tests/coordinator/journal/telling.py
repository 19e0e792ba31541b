"""Telling things, and what verifies of what became of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.journal.checkpoints import opened
from coordinator.journal.journal import Journal
from coordinator.journal.proofs import verify_inclusion
from coordinator.journal.tree import leaf_hash
from coordinator.journal.values import Entry, Proof
from coordinator.values import Told


async def tell(database: Database, *names: str) -> None:
    """Tell something for each name, in one transaction."""

    async def work(tx: Transaction) -> None:
        await tx.tell(*(Told("test.thing", data={"name": name}) for name in names))

    await database.run(work)


def named(entry: Entry) -> str:
    """The name that was told, or the kind of what the journal tells itself."""
    content: dict[str, Any] = json.loads(entry.content)
    return str(content.get("data", {}).get("name", entry.kind))


async def names(journal: Journal, start: int = 0) -> list[str]:
    return [named(entry) for entry in await journal.entries(start, 1_000_000)]


async def key_files(keys: Path) -> list[str]:
    """Whose keys are there."""
    return await asyncio.to_thread(lambda: sorted(path.stem for path in keys.iterdir()))


def check(proof: Proof) -> None:
    """Verify a proof as somebody does who has the public key, and nothing else of us."""
    checkpoint = opened(proof.checkpoint.note, proof.shard.key)
    verify_inclusion(
        leaf_hash(proof.entry.content.encode()),
        proof.entry.position,
        checkpoint.size,
        proof.hashes,
        checkpoint.root,
    )
