"""Every body of the coordinator's API, as it stands on the wire.

The rules are those of `agent.wire`: requests refuse unknown fields and every lax conversion, and a
reader of answers ignores fields it does not know. Times are RFC 3339 in UTC, sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints

from agent.wire import Answer, Count, GenerationNumber, Request, Sha256, timestamp
from coordinator.values import Release, ReleaseArtifact, RequestRecord, Sled, TrustRoot

MAX_URL_LENGTH = 2048

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)]
Version = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Keep = Annotated[int, Field(ge=0, le=1000)]
Port = Annotated[int, Field(ge=1, le=65535)]
Policy = Literal["in_service", "expunged"]
State = Literal["ok", "behind", "ahead", "refused", "unreachable"]


class HealthBody(Answer):
    """That the coordinator is well."""

    status: Literal["ok"]


# ---- generation


class GenerationBody(Answer):
    """The generation of the wanted set."""

    generation: GenerationNumber


class GenerationAdvanceBody(Request):
    """Raise the generation to at least this."""

    to: GenerationNumber


# ---- trust roots


class TrustRootAddedBody(Answer):
    """Under which id a root of trust is kept."""

    id: str


class TrustRootBody(Answer):
    """A root of trust."""

    id: str
    version: Count = Field(description="Of the root metadata.")
    time_added: AwareDatetime
    size_bytes: Count

    @classmethod
    def of(cls, root: TrustRoot) -> Self:
        """Render a root."""
        return cls(
            id=root.id,
            version=root.version,
            time_added=timestamp(root.time_added_s),
            size_bytes=len(root.content),
        )


class TrustRootsBody(Answer):
    """Every root of trust, oldest first."""

    items: tuple[TrustRootBody, ...]


# ---- sleds


class SledPutBody(Request):
    """How a sled is reached."""

    agent_url: Url
    depot_url: Url | None = Field(
        default=None,
        description="Where peers fetch from; by default the agent's host, at `repo_depot_port`.",
    )
    repo_depot_port: Port | None = Field(
        default=None, description="12348 by default; not beside `depot_url`."
    )


class SledPolicyBody(Request):
    """What the operator wants of a sled."""

    policy: Policy


class SledBody(Answer):
    """A sled, and how it fared when it was last asked."""

    id: str
    agent_url: str
    depot_url: str
    policy: Policy
    state: State | None = Field(description="None until it was asked for the first time.")
    generation: GenerationNumber | None = Field(description="The one it last confirmed.")
    last_error: str | None
    last_seen: AwareDatetime | None

    @classmethod
    def of(cls, sled: Sled) -> Self:
        """Render a sled."""
        return cls(
            id=sled.id,
            agent_url=sled.agent_url,
            depot_url=sled.depot_url,
            policy=sled.policy.value,
            state=None if sled.state is None else sled.state.value,
            generation=None if sled.generation is None else int(sled.generation),
            last_error=sled.last_error,
            last_seen=timestamp(sled.last_seen_at),
        )


class SledsBody(Answer):
    """Every sled, by id."""

    items: tuple[SledBody, ...]


class ExpungedBody(SledBody):
    """A sled whose policy was changed, with what that leaves behind."""

    notes: tuple[str, ...] = ()


class SledResetBody(Answer):
    """That a sled forgot its ledger."""

    id: str
    forgotten_generation: GenerationNumber = Field(description="The one it was at.")


# ---- releases


class ReleaseArtifactBody(Answer):
    """One name of an artifact in a release."""

    name: str
    version: str
    kind: str | None = None
    tags: dict[str, str] | None = None
    sha256: Sha256
    size_bytes: Count

    @classmethod
    def of(cls, artifact: ReleaseArtifact) -> Self:
        """Render an artifact."""
        return cls(
            name=artifact.name,
            version=artifact.version,
            kind=artifact.kind,
            tags=None if artifact.tags is None else dict(artifact.tags),
            sha256=str(artifact.sha256),
            size_bytes=artifact.size_bytes,
        )


class ReleaseBody(Answer):
    """A recorded release."""

    version: str
    sha256: Sha256
    file_name: str
    time_created: AwareDatetime
    allowed_expired: bool
    state: Literal["complete", "incomplete"]
    artifacts: tuple[ReleaseArtifactBody, ...]

    @classmethod
    def of(cls, release: Release) -> Self:
        """Render a release."""
        return cls(
            version=release.version,
            sha256=str(release.sha256),
            file_name=release.file_name,
            time_created=timestamp(release.time_created_s),
            allowed_expired=release.allowed_expired,
            state=release.state.value,
            artifacts=tuple(map(ReleaseArtifactBody.of, release.artifacts)),
        )


class ReleaseUploadedBody(Answer):
    """What became of an upload."""

    release: ReleaseBody
    status: Literal["inserted", "already_exists"]


class UploadsBody(Answer):
    """Uploads and imports that run now."""

    running: Count
    moved_bytes: Count
    """Since the start, of all together: what arrived, was fetched, verified and staged. As long as
    it rises, they get on."""


class ReleaseImportBody(Request):
    """Where a TUF repository is."""

    url: Url
    allow_expired: bool = False
    version: Version | None = None


class ReleasesBody(Answer):
    """Releases, by version."""

    items: tuple[ReleaseBody, ...]
    next_page: str | None


class PruneBody(Request):
    """How many releases are to stay; what is not given is as the configuration has it."""

    keep_newest: Keep | None = None
    keep_previous_targets: Keep | None = None
    dry_run: bool = False


class KeptReleaseBody(Answer):
    """A release that stays, and why."""

    version: str
    why: str


class PrunedBody(Answer):
    """What was removed, or would be; newest uploads first."""

    dry_run: bool
    removed: tuple[str, ...]
    kept: tuple[KeptReleaseBody, ...]


class TargetReleaseBody(Answer):
    """The release that the fleet is to run."""

    version: str | None


class TargetReleasePutBody(Request):
    """The release that the fleet is to run."""

    version: Version


# ---- replication


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
