"""What the journal gives out: frozen values. Times are Unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from coordinator.journal.notes import VerifierKey
from coordinator.journal.tree import Edge

KEY_LOST: Final = "key_lost"
"""What a shard's last entry says of it when nobody could sign how it ended."""

SHARD_DROPPED: Final = "journal.shard_dropped"
"""The kind of the entry that says which shard is in an export only."""

EARLIER: Final = "earlier"
"""In that entry: the shards that the dropped one said the same of, or carried on."""

RESTORES: Final = "restores"
"""In that entry: what the dropped one, and these, said of databases that were put back."""


GAP: Final = "journal.gap"
"""The kind of the entry that says which numbers of a sled's events are missing."""

LOG_WENT_BACK: Final = "journal.event_log_went_back"
"""The kind of the entry that says that a sled's log has lost events that were told."""

CURSOR_MOVED_BACK: Final = "journal.cursor_moved_back"
"""The kind of the entry that says that the database counted events as untold that were told."""


class ShardState(StrEnum):
    """Whether a shard takes entries."""

    ACTIVE = "active"
    SEALED = "sealed"


@dataclass(frozen=True, slots=True)
class Shard:
    """One tree of the journal.

    Attributes:
        ordinal: how many were created before it.
        first_index: the journal's index of its first entry.
        edge: of its tree, with its size.
        dropped_s: when its entries were dropped; they are in an export.
    """

    id: str
    ordinal: int
    first_index: int
    state: ShardState
    edge: Edge
    key: VerifierKey
    created_s: float
    sealed_s: float | None = None
    dropped_s: float | None = None

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.edge.size

    @property
    def end_index(self) -> int:
        """The journal's index after its last entry."""
        return self.first_index + self.edge.size


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened, at its place for ever.

    Attributes:
        index: in the journal.
        shard_id: of the shard that has it, at `position`.
        content: JSON, of which the leaf is the hash.
        leaf: that hash, as the tree has it.
    """

    index: int
    id: str
    shard_id: str
    position: int
    time_s: float
    kind: str
    content: str
    leaf: bytes


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Up to which number the events of a sled are told, in the log of this name."""

    sled: str
    epoch: str
    sequence: int

    @classmethod
    def of(cls, data: Any) -> Self:
        """Read what an export has; raises TypeError, KeyError or ValueError when it is none."""
        return cls(str(data["sled"]), str(data["epoch"]), int(data["sequence"]))


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A shard at one size, and the note that says so."""

    shard_id: str
    size: int
    note: str
    time_s: float


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry, and what proves that it is in its shard when that had `size` entries."""

    entry: Entry
    shard: Shard
    size: int
    hashes: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


@dataclass(frozen=True, slots=True)
class Growth:
    """What proves that a shard was only appended to, between two sizes."""

    shard: Shard
    first: int
    second: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are looked for: those that all of this is true of.

    Attributes:
        artifact: begins with this: 8 to 64 hex characters.
        kind: begins with this.
        since_s: not before.
    """

    artifact: str | None = None
    sled_id: str | None = None
    release: str | None = None
    kind: str | None = None
    since_s: float | None = None


EVERYTHING: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of a rotation.

    Attributes:
        done: False: there was nothing to rotate, or somebody else has done it.
        active: the shard that takes entries now.
        sealed: the one before it, if there is one.
    """

    done: bool
    active: Shard
    sealed: Shard | None
