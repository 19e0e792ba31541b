"""What the API says of replication and of who does it; the rules are those of `wire`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AwareDatetime, Field

from agent.wire.fields import Answer, Count, GenerationNumber, Sha256, timestamp
from coordinator.values import RequestRecord
from coordinator.wire import SledBody


class RequestBody(Answer):
    """One request to a sled."""

    time: AwareDatetime
    sled: str
    operation: str
    generation: GenerationNumber | None
    artifact: Sha256 | None
    source: str | None
    error: str | None

    @classmethod
    def of(cls, record: RequestRecord) -> Self:
        """Render a record."""
        return cls(
            time=timestamp(record.time_s),
            sled=record.sled_id,
            operation=record.operation,
            generation=None if record.generation is None else int(record.generation),
            artifact=None if record.artifact is None else str(record.artifact),
            source=record.source,
            error=record.error,
        )


class HistoryBody(Answer):
    """Recent requests, newest first."""

    items: tuple[RequestBody, ...]


class LostArtifactBody(Answer):
    """An artifact that is nowhere: on no sled, and in no staging."""

    sha256: Sha256
    names: tuple[str, ...]


class ReleaseStandingBody(Answer):
    """How far a release is.

    `fully_replicated`, `in_flight` and `missing` add up to `artifacts`: distinct ones that every
    sled in service holds; that one is about to get; and of which nothing moves.
    """

    version: str
    state: Literal["complete", "incomplete"]
    target: bool
    artifacts: Count
    fully_replicated: Count
    in_flight: Count
    missing: Count
    lost: tuple[LostArtifactBody, ...] = Field(description="The first of them.")


class NoRoomBody(Answer):
    """What a sled has refused because it does not fit there."""

    artifacts: Count
    size_bytes: Count = Field(description="Of all of these.")
    reason: str = Field(description="As the sled put it, of one of these.")


class SledStandingBody(SledBody):
    """How far a sled is."""

    artifacts: Count = Field(description="That it is to hold.")
    artifacts_present: Count = Field(description="Of these, that it has a good copy of.")
    in_flight: Count = Field(description="Of these, that are on their way to it.")
    copies: dict[str, Count] = Field(description="How many of these it has 0, 1, 2 copies of.")
    bytes_wanted: Count = Field(description="Of what it is to hold.")
    bytes_to_go: Count = Field(description="Of what it does not hold yet.")
    no_room: NoRoomBody | None = Field(
        default=None,
        description="What it lacks and had no room for when this coordinator last tried.",
    )
    unwell: tuple[str, ...] = Field(
        default=(),
        description="Its datasets that have no part in the copies, and why, where copies are "
        "missing; the first of them.",
    )


class PassBody(Answer):
    """The pass of replication that runs, or the last one."""

    passes: Count = Field(description="Since this coordinator started.")
    running: bool
    began: AwareDatetime | None
    ended: AwareDatetime | None
    error: str | None
    generation: GenerationNumber | None = Field(description="Of what it found out.")


class RequestCountsBody(Answer):
    """Requests to sleds, by `<operation>_ok` and `<operation>_error`, and those put off."""

    last_run: dict[str, Count]
    lifetime: dict[str, Count] = Field(description="Of all coordinators of the fleet.")


class StagingBody(Answer):
    """This coordinator's staging depot."""

    state: str
    artifacts: Count
    only_here: Count = Field(
        description="Wanted, and on no sled that answered in the last pass. What others have "
        "staged as well is not safe by that."
    )
    used_bytes: Count
    quota_bytes: Count


class ArtifactCountsBody(Answer):
    """Artifacts that the fleet is to hold, each counted once, whatever releases it is in."""

    replicated: Count = Field(description="On every sled in service.")
    in_flight: Count = Field(description="On their way to a sled that lacks them.")
    missing: Count = Field(description="Not on every sled, and not on their way.")
    lost: Count = Field(description="Nowhere.")


class CoordinatorBody(Answer):
    """A coordinator of the fleet, and what would be lost with its staging."""

    id: str
    host: str | None = Field(description="The machine that it last said it is on.")
    first_seen: AwareDatetime | None
    last_seen: AwareDatetime | None
    staged: Count = Field(description="Artifacts in its staging, as the database has it.")
    only_there: Count = Field(
        description="Of these, wanted, on no sled that answered in the last pass, and in no other "
        "staging."
    )


class CoordinatorsBody(Answer):
    """Every coordinator, by id."""

    coordinator_id: str = Field(description="Of the one that answers.")
    items: tuple[CoordinatorBody, ...]


class ReplicationBody(Answer):
    """How far the fleet is, as this coordinator knows it."""

    generation: GenerationNumber
    coordinator_id: str
    activation: Literal["periodic", "manual"]
    quiescing: bool
    uploads_running: Count
    last_pass: PassBody
    releases: tuple[ReleaseStandingBody, ...]
    sleds: tuple[SledStandingBody, ...]
    artifacts: ArtifactCountsBody
    requests: RequestCountsBody
    staging: StagingBody
    coordinators: tuple[CoordinatorBody, ...]
    warnings: tuple[str, ...]


class ActivatedBody(Answer):
    """That a pass begins soon."""

    passes: Count = Field(description="That had begun when it was asked for.")


class QuiesceBody(Answer):
    """That the coordinator takes no uploads, and ends when nothing is only in its staging."""

    only_here: Count
