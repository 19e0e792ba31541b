"""What becomes known of copies while their datasets stay: recorded, in doubt, believed, worked out.

A change enters all mirrors that it is about in one transaction. Then, copy by copy and in the same
turn of the event loop, quota and inventory follow and whoever listens is told. A copy recorded as
verified, damaged or gone is in doubt no more, unless its dataset is doubtful.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from depot.artifact import ArtifactHash
from depot.mirrors.inventory import Copy

if TYPE_CHECKING:
    from depot.mirrors.mirror import Mirror

Recorded = Callable[["Mirror", ArtifactHash, Copy | None, Copy | None], None]
Gone = Callable[["Mirror", ArtifactHash], None]


class Record(NamedTuple):
    """What becomes known of an artifact's copies on some mirrors; `copy` None: it has left."""

    mirrors: Sequence[Mirror]
    artifact: ArtifactHash
    copy: Copy | None


def record_all(records: Sequence[Record]) -> None:
    """Note, all at once, that copies appeared, changed or left; no copy may come twice."""
    records = [record for record in records if record.mirrors]
    if not records:
        return
    doubtful = {m for m in {m for r in records for m in r.mirrors} if m.doubtful}
    befores = [[m.artifacts.get(r.artifact) for m in r.mirrors] for r in records]
    with records[0].mirrors[0].store.transaction() as change:
        for mirrors, artifact, copy in records:
            for mirror in mirrors:
                if copy is None:
                    change.delete(mirror.artifacts, artifact)
                else:
                    change.put(mirror.artifacts, artifact, copy)
                if mirror not in doubtful and _is_settled(copy):
                    change.delete(mirror.doubts, artifact)
    for (mirrors, artifact, copy), before_each in zip(records, befores, strict=True):
        for mirror, before in zip(mirrors, before_each, strict=True):
            size_bytes = copy.size_bytes if copy else 0
            mirror.quota.add_used(size_bytes - (before.size_bytes if before else 0))
            mirror.inventory.changed(artifact, before, copy)
            mirror.on_copy(artifact)
            mirror.on_record(mirror, artifact, before, copy)


def _is_settled(copy: Copy | None) -> bool:
    """Tell whether no doubt is left of a copy that is recorded as this.

    On a doubtful dataset it may be memory that was read: `depot.mirrors.reverify` settles it.
    """
    return copy is None or copy.damaged or copy.verified_at_s is not None


def doubt(mirror: Mirror, copies: Mapping[ArtifactHash, Copy]) -> None:
    """Have copies in doubt."""
    with mirror.store.transaction() as change:
        for artifact, copy in copies.items():
            change.put(mirror.doubts, artifact, copy)
    for artifact in copies:
        mirror.on_copy(artifact)


def believe(mirror: Mirror, artifact: ArtifactHash) -> None:
    """Take a copy out of doubt: it was verified past memory, or is known not to be good."""
    with mirror.store.transaction() as change:
        change.delete(mirror.doubts, artifact)
    mirror.on_copy(artifact)


def check_inventory(mirror: Mirror) -> None:
    """Where state is checksummed, read every copy and see that the inventory says the same.

    Raises:
        StateCorrupted: a copy was changed in place.
        RuntimeError: the inventory was, or somebody has forgotten to tell it something.
    """
    artifacts = mirror.artifacts
    if mirror.store.checked and (wrong := mirror.inventory.differs_from(artifacts.rows)):
        raise RuntimeError(
            f"what is worked out of table {artifacts.name!r} is not what its rows come "
            f"to: {', '.join(wrong)}"
        )


def tell_nobody(*_what: object) -> None:
    """Nobody listens."""
