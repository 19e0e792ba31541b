"""What replication needs of others: the sleds' agents, the database, the staging depot.

`agent.client.AgentClient` is an `Agent`, `coordinator.staging.StagingDepot` a `Staging`; the
database is a `Records` by way of `coordinator.replication.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from agent.client import PutAnswer
from agent.wire.artifacts import ArtifactListBody
from agent.wire.copies import CopyBody
from agent.wire.identity import IdentityBody
from coordinator.values import RequestRecord, Sled, SledSighting
from depot.artifact import ArtifactConfig, ArtifactHash, Generation


class Agent(Protocol):
    """One sled's agent; every method raises Unreachable and Refused."""

    async def identity(self) -> IdentityBody:
        """Which sled it is, and what it offers others."""

    async def put_config(self, config: ArtifactConfig) -> None:
        """Tell the sled what to hold."""

    async def list_artifacts(self) -> ArtifactListBody:
        """The config's artifacts that are there, with the number of good copies."""

    async def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What each pin holds, by name."""

    async def put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        content: Path | bytes,
        *,
        on_sent: Callable[[int], None] | None = None,
    ) -> PutAnswer:
        """Put an artifact on the sled."""

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        """Have the sled fetch an artifact from depots; the copy's id."""

    async def copies(self) -> tuple[CopyBody, ...]:
        """Running and recent copies, oldest first."""

    async def copy_state(self, copy_id: str) -> CopyBody:
        """One copy."""


class Staged(Protocol):
    """A staged artifact to be sent."""

    @property
    def path(self) -> Path:
        """The file, which may be gone by the time it is opened."""

    @property
    def size_bytes(self) -> int:
        """Its length."""


class Staging(Protocol):
    """This coordinator's staging depot."""

    def held(self) -> frozenset[ArtifactHash]:
        """Every artifact that is here whole."""

    def moment(self) -> int:
        """When it is now, for `drop`."""

    async def locate(self, artifact: ArtifactHash) -> Staged:
        """Say which file has the artifact; raises NotFound when it is not here whole."""

    async def verify(self, artifact: ArtifactHash) -> bool:
        """Read an artifact that a sled found to be wrong; whether it is here whole."""

    async def drop(self, artifacts: Collection[ArtifactHash], *, since: int) -> list[ArtifactHash]:
        """Delete artifacts, unless they were claimed at some time after the moment `since`."""


@dataclass(frozen=True, slots=True, order=True)
class AsOf:
    """Since when what was read can have changed.

    Attributes:
        loop_s: on the clock of the event loop.
        moment: of this coordinator's staging.
    """

    loop_s: float
    moment: int


@dataclass(frozen=True)
class FleetSnapshot:
    """What the database says in one transaction.

    Attributes:
        generation: of the wanted set.
        sizes: bytes of each artifact that a release refers to.
        sleds: in service, sorted by id.
        kept: by sled, what is pinned there and no release refers to.
        staged_here: in this coordinator's staging, as it last wrote down.
        staged_elsewhere: in the staging of other coordinators.
        releases: by version, the artifacts of each.
        incomplete: versions of the releases that are marked so.
    """

    generation: Generation
    sizes: Mapping[ArtifactHash, int]
    sleds: tuple[Sled, ...]
    kept: Mapping[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    staged_here: frozenset[ArtifactHash] = frozenset()
    staged_elsewhere: frozenset[ArtifactHash] = frozenset()
    releases: Mapping[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    incomplete: frozenset[str] = frozenset()

    def prepare(self) -> Self:
        """Work out what all conversations need, in a thread: there may be 100,000 artifacts."""
        _ = self._common, self.names
        return self

    def config(self, sled_id: str) -> ArtifactConfig:
        """What a sled is to hold: that, and the generation, are the database's alone to say."""
        kept = self.kept.get(sled_id)
        if not kept:
            return self._common
        return ArtifactConfig(self.generation, self._common.artifacts | kept)

    @cached_property
    def _common(self) -> ArtifactConfig:
        return ArtifactConfig(self.generation, frozenset(self.sizes))

    @cached_property
    def names(self) -> Mapping[str, ArtifactHash]:
        """Each wanted artifact by its name on the wire: one object for all the sleds' lists."""
        return {str(artifact): artifact for artifact in self.sizes}


class Records(Protocol):
    """The database; every method raises DatabaseUnavailable."""

    async def snapshot(self) -> FleetSnapshot:
        """Read everything that a pass is about, in one transaction."""

    async def generation(self) -> Generation:
        """Read the generation alone."""

    async def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        """Write down all that a sled has pinned; raises the generation if that changes its config.

        What a release refers to at the time is left out, in the same transaction.
        """

    async def write_staged(self, held: Callable[[], frozenset[ArtifactHash]]) -> None:
        """Write down what is in this coordinator's staging.

        `held` is asked within the transaction, each time it is tried: an upload may just have been
        recorded.
        """

    async def strike_staged(
        self, artifacts: Collection[ArtifactHash], at_generation: Generation
    ) -> bool:
        """Write down that staging is about to let go of artifacts.

        False, and nothing is changed, when the database is at another generation.
        """

    async def write_sightings(self, sightings: Sequence[SledSighting]) -> None:
        """Write down how sleds fared."""

    async def write_requests(
        self, requests: Sequence[RequestRecord], counts: Mapping[str, int]
    ) -> None:
        """Add to the ring of requests, and to the counts of a lifetime."""

    async def write_states(
        self, incomplete: Mapping[str, Collection[ArtifactHash]], complete: Collection[str]
    ) -> None:
        """Mark releases that have lost artifacts, and those that have got all back.

        One of which a lost artifact lies in anybody's staging by now is left as it is.
        """
