"""What lies in which coordinator's staging depot, so that all of them know what is where.

Rule for whoever calls this (F2, F5): a row says that the bytes are there. They are durable before
the row is written, and deleted after it is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from sqlalchemy import bindparam, delete, insert, select

from coordinator.database import generation
from coordinator.database.tables import staged_artifacts
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash, Generation, in_order


async def add(tx: Transaction, coordinator_id: str, artifacts: Iterable[ArtifactHash]) -> None:
    """Say that artifacts are staged, some of them perhaps already."""
    await _insert(tx, coordinator_id, set(artifacts) - await _of(tx, coordinator_id))


async def replace(tx: Transaction, coordinator_id: str, artifacts: Iterable[ArtifactHash]) -> None:
    """Say what is staged, and that nothing else is: what a coordinator finds when it looks."""
    known, found = await _of(tx, coordinator_id), set(artifacts)
    await _delete(tx, coordinator_id, known - found)
    await _insert(tx, coordinator_id, found - known)


async def drop(
    tx: Transaction,
    coordinator_id: str,
    artifacts: Collection[ArtifactHash],
    at_generation: Generation,
) -> bool:
    """Say that artifacts are not staged any more, because enough sleds hold them.

    Returns False, and changes nothing, when the generation under which they do is not the current
    one: nobody has asked the sleds since (F2).
    """
    if await generation.read(tx) != at_generation:
        return False
    await _delete(tx, coordinator_id, artifacts)
    return True


async def forget(tx: Transaction, coordinator_id: str) -> int:
    """A coordinator is gone for good, with its disk; how many artifacts it had staged."""
    return await tx.write(
        delete(staged_artifacts).where(staged_artifacts.c.coordinator_id == coordinator_id)
    )


async def by_coordinator(tx: Transaction) -> dict[str, frozenset[ArtifactHash]]:
    """What each coordinator has staged; those with nothing are left out."""
    found: dict[str, set[ArtifactHash]] = defaultdict(set)
    async for some in tx.batches(select(staged_artifacts)):
        for row in some:
            found[row.coordinator_id].add(row.sha256)
    return {coordinator_id: frozenset(staged) for coordinator_id, staged in found.items()}


async def _of(tx: Transaction, coordinator_id: str) -> set[ArtifactHash]:
    its = staged_artifacts.c.coordinator_id == coordinator_id
    return {row.sha256 for row in await tx.rows(select(staged_artifacts.c.sha256).where(its))}


async def _insert(
    tx: Transaction, coordinator_id: str, artifacts: Collection[ArtifactHash]
) -> None:
    await tx.write(
        insert(staged_artifacts),
        ({"coordinator_id": coordinator_id, "sha256": sha256} for sha256 in in_order(artifacts)),
    )


async def _delete(
    tx: Transaction, coordinator_id: str, artifacts: Collection[ArtifactHash]
) -> None:
    await tx.write(
        delete(staged_artifacts).where(
            staged_artifacts.c.coordinator_id == coordinator_id,
            staged_artifacts.c.sha256 == bindparam("its_sha256"),
        ),
        ({"its_sha256": sha256} for sha256 in in_order(artifacts)),
    )
