"""Whether the agent can do its work, and everything about it in one document."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import AwareDatetime, Field

from agent.wire.artifacts import ArtifactsBody
from agent.wire.datasets import DatasetBody
from agent.wire.fields import Answer, Count, GenerationNumber, Sha256
from agent.wire.healing import NO_HEALING, HealingBody
from agent.wire.node import NodeBody
from agent.wire.scrub import ScrubBody


class HealthBody(Answer):
    """Whether the server can do its work, and if not, why."""

    status: Literal["ok", "unavailable"]
    reasons: tuple[str, ...] = ()


class RelayBody(Answer):
    """How much is served of what is still being received."""

    offered: bool = Field(
        default=False, description="Peers can fetch what is still being received (depot.relay)."
    )
    arriving: Count = Field(description="Artifacts that can be fetched while they arrive.")
    readers: Count = Field(description="Answers that are being sent from them.")
    sent_bytes: Count = Field(description="Sent from such since the agent started.")


NO_RELAY: Final = RelayBody(arriving=0, readers=0, sent_bytes=0)


class CopyCountsBody(Answer):
    """How many of the copies that GET /copies lists are in which state."""

    running: Count
    succeeded: Count
    failed: Count
    superseded: Count


class EventLogBody(Answer):
    """How the event log itself is."""

    epoch: str
    oldest: Count
    latest: Count
    persistent: bool = Field(description="False: events are in memory only and end with the agent.")
    dropped: Count = Field(description="Events lost since start, because too many came at once.")
    last_error: str | None


REGISTRATION_DUTY: Final = "registration"
"""Of a sled that tells a coordinator where it is; others have no such duty."""


class DutyBody(Answer):
    """A background duty: whether its last run failed, and how often one has."""

    name: str
    failing: bool
    failures: Count
    last_error: str | None
    last_failed_at: AwareDatetime | None


class StatusBody(Answer):
    """Everything about a sled in one document, for people and dashboards."""

    sled_id: str | None
    version: str
    uptime_s: float
    ledger: Literal["clear", "empty", "conflicted", "behind", "unknown"]
    ledger_epoch: Count
    generation: GenerationNumber | None
    generation_certain: bool
    config_digest: Sha256 | None
    datasets: tuple[DatasetBody, ...]
    under_replicated: ArtifactsBody = Field(
        description="Artifacts of the config with fewer good copies than there are datasets."
    )
    missing: ArtifactsBody = Field(
        default=ArtifactsBody(count=0, artifacts=()),
        description="Artifacts of the config without any good copy.",
    )
    deletions_held_until: AwareDatetime | None = Field(
        default=None,
        description="Until then nothing that the config dropped is deleted (storage.delete_grace).",
    )
    healing: HealingBody = NO_HEALING
    relay: RelayBody = NO_RELAY
    puts_running: Count
    copies: CopyCountsBody
    scrub: ScrubBody | None = None
    events: EventLogBody
    duties: tuple[DutyBody, ...]
    node: NodeBody | None = Field(description="None until the first sample is taken.")
    warnings: tuple[str, ...]
