"""Where each artifact is among the sleds that can be used, by index.

A fleet has a million pairs of a sled and an artifact. What every sled has is not looked at pair by
pair, and each sled's artifacts are looked at together, while they are in the processor's cache.
"""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from coordinator.replication.values import Inventory, Policy, SledInventory
from depot.artifact import ArtifactHash


@dataclass(frozen=True, slots=True)
class Places:
    """The sleds that can be used, by what they have of one artifact; each is in one list."""

    holders: Sequence[int]
    arriving: Sequence[int]
    missing: Sequence[int]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The sleds that can be used, in an order that is drawn by lot.

    Attributes:
        sleds: an index elsewhere is one into these.
        slow: those that others are not to wait for.
        held: what at least one of them has.
        missing: per artifact that is, the sleds that lack it and are not receiving it.
        arriving: per artifact that is, the sleds that lack it so far and are receiving it.
        holders: who has a good copy of what some sled lacks.
    """

    sleds: Sequence[SledInventory]
    slow: AbstractSet[int]
    held: AbstractSet[ArtifactHash]
    missing: Mapping[ArtifactHash, Sequence[int]]
    arriving: Mapping[ArtifactHash, Sequence[int]]
    holders: Mapping[ArtifactHash, Sequence[int]]

    @classmethod
    def of(cls, inventory: Inventory, policy: Policy, rng: random.Random) -> Self:
        """Look at all sleds, one after the other."""
        sleds = sorted(inventory.sleds, key=lambda sled: sled.id)
        # With those set aside, so that the order of the others does not depend on them.
        rng.shuffle(sleds)
        sleds = [sled for sled in sleds if sled.set_aside is None]
        wanted = inventory.sizes.keys()
        good = [_good(sled) for sled in sleds]
        lacked = [wanted - of_sled for of_sled in good]
        some_lack: AbstractSet[ArtifactHash] = set().union(*lacked)
        return cls(
            sleds=sleds,
            slow=_slow(sleds, policy.slow_share),
            held=wanted & set().union(*good),
            missing=_by_artifact(
                lacks - sled.arriving for lacks, sled in zip(lacked, sleds, strict=True)
            ),
            arriving=_by_artifact(
                lacks & sled.arriving for lacks, sled in zip(lacked, sleds, strict=True)
            ),
            holders=_by_artifact(some_lack & of_sled for of_sled in good),
        )

    def places(self, artifact: ArtifactHash) -> Places:
        """Where an artifact is that some sled lacks."""
        return Places(
            self.holders.get(artifact, ()),
            self.arriving.get(artifact, ()),
            self.missing.get(artifact, ()),
        )


def _by_artifact(of_sleds: Iterable[AbstractSet[ArtifactHash]]) -> dict[ArtifactHash, list[int]]:
    """Turn what each sled has around."""
    found: defaultdict[ArtifactHash, list[int]] = defaultdict(list)
    for index, artifacts in enumerate(of_sleds):
        for artifact in artifacts:
            found[artifact].append(index)
    return dict(found)


def _slow(sleds: Sequence[SledInventory], share: float) -> frozenset[int]:
    paces = {
        index: sled.pace_bytes_per_s
        for index, sled in enumerate(sleds)
        if sled.pace_bytes_per_s is not None
    }
    if not paces:
        return frozenset()
    least = share * statistics.median(paces.values())
    return frozenset(index for index, pace in paces.items() if pace < least)


def _good(sled: SledInventory) -> AbstractSet[ArtifactHash]:
    if 0 in sled.held.values():
        return {artifact for artifact, copies in sled.held.items() if copies}
    return sled.held.keys()
