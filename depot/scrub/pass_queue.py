"""What a pass is to verify and in which order: the copies not verified for longest first.

Decided when a pass begins or goes on; whoever takes a copy from the queue asks `is_part` once more,
since it may have been verified, or have gone, in the meantime.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge

from depot.artifact import ArtifactHash
from depot.concurrency.unhurried import leisurely
from depot.mirrors.inventory import Copy
from depot.scrub.report import ScrubPass


@dataclass(frozen=True, slots=True)
class PassQueue:
    """The copies that are part of a pass, with what they come to.

    Attributes:
        copies: each artifact with the size of its copy in bytes, to be gone through once.
    """

    copies: Iterator[tuple[ArtifactHash, int]]
    count: int
    total_bytes: int


def is_part(copy: Copy, scrub: ScrubPass, now_s: float) -> bool:
    """Tell whether a pass is to verify a copy."""
    verified_at_s = copy.verified_at_s
    if copy.damaged or verified_at_s is None:
        return not copy.damaged
    return not scrub.since_s <= verified_at_s <= now_s


def queue_of(
    scrub: ScrubPass,
    copies: Mapping[ArtifactHash, Copy],
    ages: Mapping[ArtifactHash, float],
    now_s: float,
) -> PassQueue:
    """Go through all copies, for a thread; see `CopyRecords.ages`.

    Sorted in parts, which are merged as the pass goes on: to sort them all at once would keep every
    thread waiting. They are packed, since the collector of garbage would look at a tuple for each.
    """
    parts: list[_Part] = []
    for some in leisurely(copies.items()):
        queued = sorted(
            (ages.get(artifact, 0.0), artifact, copy.size_bytes)
            for artifact, copy in some
            if is_part(copy, scrub, now_s)
        )
        parts.append(_packed(queued))
    total_bytes = sum(sum(sizes_bytes) for _, _, sizes_bytes in parts)
    oldest_first = merge(*(zip(*part, strict=True) for part in parts))
    return PassQueue(
        ((artifact, size_bytes) for _, artifact, size_bytes in oldest_first),
        sum(len(artifacts) for _, artifacts, _ in parts),
        total_bytes,
    )


_Part = tuple["array[float]", Sequence[ArtifactHash], "array[int]"]


def _packed(queued: Sequence[tuple[float, ArtifactHash, int]]) -> _Part:
    return (
        array("d", [age_s for age_s, _, _ in queued]),
        [artifact for _, artifact, _ in queued],
        array("Q", [size_bytes for _, _, size_bytes in queued]),
    )
