"""The artifacts of a sled, and where each of them is."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from agent.wire.fields import Answer, Count, GenerationNumber, Sha256


class ArtifactListBody(Answer):
    """The artifacts of the current config with at least one good copy, and how many copies."""

    generation: GenerationNumber
    list: dict[Sha256, Count]


class ArtifactPutBody(Answer):
    """How a put ended."""

    datasets: Count = Field(description="Healthy datasets on this sled.")
    successful_writes: Count = Field(description="Datasets that hold the artifact durably.")


class ArtifactCopyDetail(Answer):
    """One dataset's copy of an artifact."""

    dataset: str = Field(description="The dataset's path on the sled.")
    present: bool
    verified_at: AwareDatetime | None = Field(
        description="When the copy's bytes were last found to match its hash."
    )
    size_bytes: Count | None
    path: str | None = Field(description="The file, for consumers on the sled itself.")
    damaged: bool = Field(
        default=False,
        description="There is no good copy, but a damaged one, in its place or in quarantine.",
    )
    quarantined: tuple[str, ...] = Field(
        default=(), description="Ids of the copies in quarantine; see GET /quarantine."
    )


class ArtifactDetailBody(Answer):
    """Where an artifact is on this sled."""

    sha256: Sha256
    copies: tuple[ArtifactCopyDetail, ...]


class ArtifactsBody(Answer):
    """Some artifacts: how many, and the first of them by name."""

    count: Count
    artifacts: tuple[Sha256, ...] = Field(description="The first of them, sorted.")
