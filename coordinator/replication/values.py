"""What collecting, planning and executing pass to each other: frozen values, nothing waits here.

A sled is named by its id everywhere; who makes requests looks its URLs up. An artifact is planned
at most once for each sled, so `(artifact, target)` names a put or a copy within one plan, and
`(artifact, after)` the one that a copy waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from coordinator.replication.layout import doubling_round, forest
from depot.artifact import ArtifactHash, Generation

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SledInventory:
    """What one sled in service has, as it said itself.

    Attributes:
        id: of the sled.
        held: good copies of each wanted artifact that it lists; one that is not in here is missing.
            Of a sled that is set aside: what it last said, or nothing.
        arriving: wanted artifacts that a copy or put is bringing it now.
        relays: others can read from its depot what is still arriving there.
        datasets: how many copies of each artifact it is to have.
        unwell: which of its datasets cannot be counted on, and why, where copies are missing.
        pace_bytes_per_s: the fastest copy that it is known to have made; None when none is known.
            One copy alone says little: it is as slow as the slowest sled that it came through.
        set_aside: why nothing is to be done with it in this pass; None when it can be used.
    """

    id: str
    held: Mapping[ArtifactHash, int] = field(default_factory=dict)
    arriving: frozenset[ArtifactHash] = frozenset()
    relays: bool = True
    datasets: int = 2
    unwell: tuple[str, ...] = ()
    pace_bytes_per_s: float | None = None
    set_aside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is wanted, and what is where, under one generation.

    Attributes:
        generation: of the wanted set. Every list of a sled that is not set aside was made under it.
        sizes: bytes of each wanted artifact: what every sled is to hold.
        sleds: all that are in service, also those set aside.
        staged_here: artifacts in this coordinator's staging, wanted or not.
        staged_elsewhere: artifacts in the staging of other coordinators, as the database has it.
    """

    generation: Generation
    sizes: Mapping[ArtifactHash, int]
    sleds: tuple[SledInventory, ...]
    staged_here: frozenset[ArtifactHash] = frozenset()
    staged_elsewhere: frozenset[ArtifactHash] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the fleet is to be filled.

    Attributes:
        min_sled_replication: sleds that must hold an artifact before staging lets go of it; all
            sleds of a smaller fleet.
        puts_to_relays: sleds that are sent the same artifact from staging when they relay: the
            others get it from these in the same time. Of sleds that do not relay, as many are sent
            it as must hold it.
        hop_bytes: what a link carries while one more sled of a chain begins to receive. The larger
            it is, the flatter are the trees.
        max_fan_out: sleds that one sled serves the same artifact at once, at most.
        max_sources: named to a sled for one copy, at most: what it reads from, and what it falls
            over to.
        slow_share: a sled with less than this share of the median pace is slow: it gets its bytes
            after the others, and passes nothing on while somebody else can.
    """

    min_sled_replication: int = 3
    puts_to_relays: int = 1
    hop_bytes: int = 2 * MIB
    max_fan_out: int = 8
    max_sources: int = 4
    slow_share: float = 0.25


@dataclass(frozen=True, slots=True)
class Put:
    """Send an artifact from this coordinator's staging."""

    artifact: ArtifactHash
    target: str


class Start(StrEnum):
    """When a copy can be asked for."""

    NOW = "now"
    """Its first source has the artifact, or has been receiving it since before the plan."""
    BEGUN = "begun"
    """Once the put or copy that it waits for has begun: the source relays."""
    FINISHED = "finished"
    """Once that put or copy has succeeded."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Have a sled fetch an artifact from other sleds.

    Attributes:
        sources: ids of sleds, in the order in which they are to be tried; never empty, never the
            target. The first is the one that was planned for; the others are for when it fails,
            and may have nothing yet.
        start: when it can be asked for.
        after: the sled whose own put or copy of this artifact it waits for, as `start` says; None
            with `Start.NOW`. It is the first source, which is to have the bytes itself first, or
            another sled, which that source is to have served first. When that ends badly, the
            copy can begin with the sources that are left, if any are.
    """

    artifact: ArtifactHash
    target: str
    sources: tuple[str, ...]
    start: Start = Start.NOW
    after: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A sled that others are to read an artifact from first, and when they can."""

    sled: str
    start: Start = Start.NOW
    """Not NOW when a put of this plan is to bring it the artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """All copies of one artifact.

    Attributes:
        origins: who has the bytes first; never empty, and those that can be read now first.
        targets: who gets them, in order: first those that others read from while they receive it.
        relays: how many of the targets are read from while they receive it.
        fan_out: how many others each serves at once while it receives.
        max_sources: that are named for each copy.
    """

    artifact: ArtifactHash
    origins: tuple[Origin, ...]
    targets: tuple[str, ...]
    relays: int
    fan_out: int
    max_sources: int

    def __len__(self) -> int:
        """The number of copies."""
        return len(self.targets)

    def copies(self) -> Iterator[Copy]:
        """Each copy, after the one that it waits for."""
        nodes = (*(origin.sled for origin in self.origins), *self.targets)
        parents = self.parents()
        for index, parent in enumerate(parents, len(self.origins)):
            start, after = self._wait(index, parent)
            yield Copy(
                self.artifact,
                nodes[index],
                self._sources(nodes, parents, index, parent),
                start,
                None if after is None else nodes[after],
            )

    def parents(self) -> list[int]:
        """Of each target: the index of who serves it, through the origins and then the targets."""
        with_relays = len(self.origins) + self.relays
        others = range(with_relays, len(self.origins) + len(self.targets))
        return [
            *forest(self.relays, self.fan_out),
            *(index - doubling_round(index, with_relays) for index in others),
        ]

    def _wait(self, index: int, parent: int) -> tuple[Start, int | None]:
        """When a copy can begin, and after whose."""
        have = len(self.origins)
        with_relays = have + self.relays
        if index >= with_relays and (earlier := self._served_before(index, parent)) is not None:
            return Start.FINISHED, earlier
        if parent < have and self.origins[parent].start is Start.NOW:
            return Start.NOW, None
        relayed = index < with_relays and (
            parent >= have or self.origins[parent].start is Start.BEGUN
        )
        return Start.BEGUN if relayed else Start.FINISHED, parent

    def _served_before(self, index: int, parent: int) -> int | None:
        """Whom the same sled serves before; those that do not relay are served one by one."""
        with_relays = len(self.origins) + self.relays
        so_far = doubling_round(index, with_relays)
        if so_far > with_relays:
            return so_far // 2 + parent if parent < so_far // 2 else None
        relayed_to = len(self.origins) + parent * self.fan_out
        return relayed_to if relayed_to < with_relays else None

    def _sources(
        self, nodes: tuple[str, ...], parents: list[int], index: int, parent: int
    ) -> tuple[str, ...]:
        """Who is planned for, who serves that one, and then origins, not the same for all."""
        have = len(self.origins)
        first = [parent] if parent < have else [parent, parents[parent - have]]
        turns = ((index + turn) % have for turn in range(min(have, self.max_sources)))
        return tuple(nodes[each] for each in dict.fromkeys((*first, *turns)))[: self.max_sources]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one pass is to do, and what it found out.

    A fleet of 1,000 sleds that lacks 1,000 artifacts lacks a million replicas: copies are kept as
    one `Spread` for each artifact and made when they are asked for.

    Attributes:
        generation: that it was made for; nothing of it may be done under another one.
        puts: in the order in which they are to begin.
        spreads: at most one for each artifact.
        healing: per sled, what it has on fewer datasets than it should; it heals that by itself.
        lost: wanted artifacts that nobody has: no sled, no staging, and every sled has said so.
        out_of_reach: wanted artifacts that nobody has who can be asked; a sled that is set aside
            may have them.
        awaited: wanted artifacts that nobody has yet and that are on their way: in the staging of
            another coordinator, or arriving at a sled.
        droppable: staged here, and held by enough sleds under `generation`.
        unwanted: staged here, and not wanted under `generation`. Somebody may be uploading it
            anew: ask the database again, in the transaction that lets go of it.
    """

    generation: Generation
    puts: tuple[Put, ...] = ()
    spreads: tuple[Spread, ...] = ()
    healing: Mapping[str, tuple[ArtifactHash, ...]] = field(default_factory=dict)
    lost: frozenset[ArtifactHash] = frozenset()
    out_of_reach: frozenset[ArtifactHash] = frozenset()
    awaited: frozenset[ArtifactHash] = frozenset()
    droppable: frozenset[ArtifactHash] = frozenset()
    unwanted: frozenset[ArtifactHash] = frozenset()

    def copies(self) -> Iterator[Copy]:
        """Every copy, artifact by artifact, each after the one that it waits for."""
        for spread in self.spreads:
            yield from spread.copies()

    @property
    def copies_planned(self) -> int:
        """How many copies there are."""
        return sum(map(len, self.spreads))
