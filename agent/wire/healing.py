"""How far the healing is."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from agent.wire.artifacts import ArtifactsBody
from agent.wire.fields import Answer, Count, Sha256


class HealingBody(Answer):
    """How far the background healing is."""

    todo: Count = Field(description="Artifacts that wait for copies, or are being healed.")
    todo_bytes: Count = Field(description="What is to be written for them, as far as known.")
    healed: Count = Field(description="Artifacts healed since the agent started.")
    heal_seconds: float = Field(description="What these took since they were found, in all.")
    failed: Count = Field(description="Of those in `todo`: could not be healed at the last try.")
    current: Sha256 | None
    lost: ArtifactsBody = Field(
        description="Wanted artifacts of which nobody has a good copy; what is left is kept."
    )


NO_HEALING: Final = HealingBody(
    todo=0,
    todo_bytes=0,
    healed=0,
    heal_seconds=0.0,
    failed=0,
    current=None,
    lost=ArtifactsBody(count=0, artifacts=()),
)
