"""What came of asking one sled: a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.replication.ports import AsOf
from coordinator.replication.verdict import Verdict
from depot.artifact import ArtifactHash, Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class SledReport:
    """What came of asking a sled.

    Attributes:
        verdict: why it is set aside; None when it can be used.
        generation: that it said it has.
        held: good copies of each wanted artifact it has.
        copying: wanted artifacts that it is fetching.
        said_id: which sled the agent says it is, where it says so.
        relays: its agent says that others can read from its depot what is still arriving there.
        datasets: that it says it has; 0 when it says nothing of that.
        unwell: which of these cannot be counted on, and why; asked when copies are missing.
        pinned: all that is pinned there, where that was asked.
        seen_at_s: Unix time of its last answer.
        as_of: what it says may be as old as this.
    """

    sled_id: str
    as_of: AsOf
    verdict: Verdict | None = None
    generation: Generation | None = None
    held: Mapping[ArtifactHash, int] = field(default_factory=dict)
    copying: frozenset[ArtifactHash] = frozenset()
    pinned: frozenset[ArtifactHash] | None = None
    said_id: str | None = None
    relays: bool = False
    datasets: int = 0
    unwell: tuple[str, ...] = ()
    seen_at_s: float | None = None
