"""The bodies of the journal's endpoints; the rules are those of `coordinator.wire`.

Hashes are 64 hex characters; notes and verifier keys are text as C2SP writes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from agent.wire.fields import Answer, Count, Request, Sha256

ShardId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class EntryBody(Answer):
    """Something that happened."""

    index: Count = Field(description="In the journal, for ever.")
    id: str
    time: AwareDatetime
    kind: str
    shard: ShardId
    position: Count = Field(description="In its shard.")
    content: str = Field(description="JSON. The leaf is the hash of exactly this text, in UTF-8.")
    leaf_hash: Sha256 | None = Field(description="As the tree has it; null: it is missing.")


class EntriesBody(Answer):
    """Some entries, in the order of their indices."""

    items: tuple[EntryBody, ...]
    next_start: Count | None = Field(description="`start` for what follows; null at the end.")


class ShardBody(Answer):
    """One tree of the journal."""

    id: ShardId
    state: Literal["active", "sealed"]
    first_index: Count = Field(description="The journal's index of its first entry.")
    size: Count
    root_hash: Sha256
    verifier_key: str
    created_at: AwareDatetime
    sealed_at: AwareDatetime | None
    dropped_at: AwareDatetime | None = Field(description="Its entries are in an export since.")


class ShardsBody(Answer):
    """Every shard, the oldest first."""

    items: tuple[ShardBody, ...]


class CheckpointBody(Answer):
    """A shard at one size, signed."""

    shard: ShardId
    first_index: Count
    size: Count
    note: str = Field(description="c2sp.org/tlog-checkpoint")
    verifier_key: str = Field(description="For who has no other: compare it with one kept before.")


class ProofBody(Answer):
    """An entry, and what proves that it is in the tree of a checkpoint."""

    entry: EntryBody
    tree_size: Count
    hashes: tuple[Sha256, ...] = Field(description="RFC 6962, 2.1.1: the lowest first.")
    checkpoint: CheckpointBody


class GrowthBody(Answer):
    """What proves that a shard was only appended to."""

    shard: ShardId
    first: Count
    second: Count
    hashes: tuple[Sha256, ...] = Field(description="RFC 6962, 2.1.2")


class RotateBody(Request):
    """Which shard is to be sealed."""

    ending: ShardId | None = Field(
        default=None, description="Only this one: said again, nothing else is sealed."
    )
    undo: bool = Field(
        default=False, description="Go on with the one that was sealed, while the new one is empty."
    )
    lost_key: bool = Field(
        default=False,
        description="Its key is lost for good: seal it without a last checkpoint.",
    )


class DropBody(Request):
    """How the shard ended, by the export that was verified."""

    size: Count
    root_hash: Sha256


class RotationBody(Answer):
    """What became of it."""

    done: bool
    active: ShardBody
    sealed: ShardBody | None = Field(description="The one before the active one.")
