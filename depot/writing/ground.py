"""The datasets as the writes find them that begin in one step of the event loop.

Between two of these nothing changes but what they reserve: the rest is looked up once for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from depot.artifact import ArtifactHash
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.quarantine.keeper import QuarantineKeeper
from depot.writing.ingest import StagedCopy


@dataclass(frozen=True, slots=True)
class Ground:
    """Datasets that all have room, as of this step of the event loop.

    Attributes:
        healthy: those that can be written.
        copies: what is on each of them.
        unstaged: for each, by mirror, the file of a body that is not written yet.
        most_bytes: so much fits on each, as far as its filesystem and its limit say.
    """

    healthy: Sequence[Mirror]
    copies: Sequence[Mapping[ArtifactHash, Copy]]
    unstaged: Mapping[int, StagedCopy]
    most_bytes: int

    def has(self, artifact: ArtifactHash) -> bool:
        """Tell whether any has a copy, good or not."""
        return any(artifact in copies for copies in self.copies)


def survey(mirrors: MirrorSet, quarantine: QuarantineKeeper) -> Ground | None:
    """Look at the datasets; None where one of them may have to make room first.

    Raises:
        NoDataset: none can be read, or none can be written.
    """
    mirrors.require_readable()
    mirrors.require_healthy()
    healthy = mirrors.healthy()
    if any(quarantine.is_in_the_way(mirror, 0) for mirror in healthy):
        return None
    return Ground(
        healthy,
        [mirror.artifacts.rows for mirror in healthy],
        {mirror.index: StagedCopy(mirror.dataset, "") for mirror in healthy},
        min(map(_room_bytes, healthy)),
    )


def _room_bytes(mirror: Mirror) -> int:
    """The longest artifact for which there is room; -1: not even for an empty one."""
    space = mirror.space
    if space is None:
        return mirror.quota.limit_bytes
    if space.free_inodes == 0:
        return -1
    return min(mirror.quota.limit_bytes, space.free_bytes)
