"""What lies in which coordinator's staging depot, so that all of them know what is where.

Rule for whoever calls this (F2, F5): a row says that the bytes are there. They are durable before
the row is written, and deleted after it is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from sqlalchemy import bindparam, delete, insert, select

from coordinator.database import generation
from coordinator.database.tables import staged_artifacts
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash, Generation


async def add(tx: Transaction, coordinator_id: str, sizes: Mapping[ArtifactHash, int]) -> None:
    """Say that artifacts are staged, some of them perhaps already; sizes in bytes."""
    known = await _of(tx, coordinator_id)
    await tx.write(
        insert(staged_artifacts),
        [
            {"coordinator_id": coordinator_id, "sha256": sha256, "size_bytes": size_bytes}
            for sha256, size_bytes in sizes.items()
            if sha256 not in known
        ],
    )


async def replace(tx: Transaction, coordinator_id: str, sizes: Mapping[ArtifactHash, int]) -> None:
    """Say what is staged, and that nothing else is: what a coordinator finds when it starts."""
    await _delete(tx, coordinator_id, await _of(tx, coordinator_id) - sizes.keys())
    await add(tx, coordinator_id, sizes)


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


async def forget(tx: Transaction, coordinator_id: str) -> None:
    """A coordinator is gone for good, with its disk."""
    await tx.write(
        delete(staged_artifacts).where(staged_artifacts.c.coordinator_id == coordinator_id)
    )


async def by_coordinator(tx: Transaction) -> dict[str, dict[ArtifactHash, int]]:
    """What each coordinator has staged, with sizes in bytes."""
    found: dict[str, dict[ArtifactHash, int]] = defaultdict(dict)
    for row in await tx.rows(select(staged_artifacts)):
        found[row.coordinator_id][row.sha256] = row.size_bytes
    return dict(found)


async def _of(tx: Transaction, coordinator_id: str) -> set[ArtifactHash]:
    its = staged_artifacts.c.coordinator_id == coordinator_id
    return {row.sha256 for row in await tx.rows(select(staged_artifacts.c.sha256).where(its))}


async def _delete(
    tx: Transaction, coordinator_id: str, artifacts: Collection[ArtifactHash]
) -> None:
    await tx.write(
        delete(staged_artifacts).where(
            staged_artifacts.c.coordinator_id == coordinator_id,
            staged_artifacts.c.sha256 == bindparam("its_sha256"),
        ),
        [{"its_sha256": sha256} for sha256 in sorted(artifacts)],
    )
