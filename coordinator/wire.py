"""Every body of the coordinator's API, as it stands on the wire.

The rules are those of `agent.wire`: requests refuse unknown fields and every lax conversion, and a
reader of answers ignores fields it does not know. Times are RFC 3339 in UTC, sizes are bytes.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, StringConstraints

from agent.wire.fields import Answer, Count, GenerationNumber, Request, Sha256, timestamp
from coordinator.values import Release, ReleaseArtifact, Sled, TrustRoot

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
