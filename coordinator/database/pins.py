"""What sleds have pinned that no release has: each is wanted on that sled until it is unpinned.

Otherwise the sled would refuse every config from then on. A change of these is a new generation
(F3), so that what a sled is to hold at a generation is one set for all coordinators.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import bindparam, delete, insert, select

from coordinator.database import sleds, snapshots
from coordinator.database.tables import release_artifacts, sled_pins
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash


async def keep(
    tx: Transaction, sled_id: str, pinned: Collection[ArtifactHash]
) -> frozenset[ArtifactHash]:
    """Record all that a sled has pinned, as it just said, and return what is kept for it.

    What is pinned and in no release is kept from now on, what is not pinned is not any more. What
    is kept, still pinned and in a release again stays: it makes no difference now.

    Raises:
        SledNotFound: there is none of this id.
    """
    await sleds.get(tx, sled_id)
    known = (await every(tx)).get(sled_id, frozenset())
    released = {row.sha256 for row in await tx.rows(select(release_artifacts.c.sha256))}
    released |= {each.sha256 for each in await snapshots.every(tx)}
    kept = frozenset(pinned) & known | frozenset(pinned) - released
    await tx.write(
        delete(sled_pins).where(
            sled_pins.c.sled_id == sled_id, sled_pins.c.sha256 == bindparam("its_sha256")
        ),
        [{"its_sha256": sha256} for sha256 in sorted(known - kept)],
    )
    await tx.write(
        insert(sled_pins),
        [{"sled_id": sled_id, "sha256": sha256} for sha256 in sorted(kept - known)],
    )
    return kept


async def every(tx: Transaction) -> dict[str, frozenset[ArtifactHash]]:
    """What is kept for each sled; sleds without anything are left out."""
    found: dict[str, set[ArtifactHash]] = defaultdict(set)
    for row in await tx.rows(select(sled_pins)):
        found[row.sled_id].add(row.sha256)
    return {sled_id: frozenset(kept) for sled_id, kept in found.items()}
