"""Damaged copies that were set aside."""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from agent.wire.fields import Answer, Count, Sha256


class QuarantinedBody(Answer):
    """A damaged copy that was set aside."""

    id: str
    sha256: Sha256
    dataset: str = Field(description="The dataset's path on the sled.")
    reason: str = Field(description="mismatch, short, unreadable or replaced; others may come.")
    time: AwareDatetime = Field(description="When it was set aside.")
    size_bytes: Count
    path: str = Field(description="The file, for an operator on the sled itself.")
    last_copy: bool = Field(
        description="Nothing deletes it: it is wanted, and no verified copy exists."
    )


class QuarantineBody(Answer):
    """Every damaged copy that was set aside, oldest first."""

    quarantined: tuple[QuarantinedBody, ...]
