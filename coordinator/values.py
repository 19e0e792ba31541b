"""What the rooms of the coordinator pass to each other: frozen values, without behaviour.

Times are Unix seconds, sizes bytes. Rows of the database are turned into these and back in
`coordinator.database` alone; bodies of the API in `coordinator.api` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from depot.artifact import ArtifactHash, Generation

MAX_HISTORY: Final = 4_096
"""Requests to sleds that are kept."""
FIRST_GENERATION: Final = Generation(0)
"""Before any change: of what is not recorded yet."""


class SledPolicy(StrEnum):
    """What the operator wants of a sled."""

    IN_SERVICE = "in_service"
    EXPUNGED = "expunged"


class SledState(StrEnum):
    """How a sled fared when it was last asked."""

    OK = "ok"
    BEHIND = "behind"
    AHEAD = "ahead"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class ReleaseState(StrEnum):
    """Whether every artifact of a release is somewhere."""

    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Sled:
    """A node of the fleet, and how to reach it."""

    id: str
    agent_url: str
    depot_url: str
    policy: SledPolicy = SledPolicy.IN_SERVICE
    state: SledState | None = None
    """None until it was asked for the first time."""
    last_error: str | None = None
    last_seen_at: float | None = None
    generation: Generation | None = None
    """The one it last confirmed."""


@dataclass(frozen=True, slots=True)
class SledSighting:
    """How a sled fared when it was asked."""

    sled_id: str
    state: SledState
    error: str | None = None
    seen_at_s: float | None = None
    """When it answered; None when it did not."""
    generation: Generation | None = None
    """The one it confirmed; None when it said nothing about that."""


@dataclass(frozen=True, slots=True)
class ReleaseArtifact:
    """One name of an artifact in a release; several names may share one SHA-256."""

    name: str
    version: str
    sha256: ArtifactHash
    size_bytes: int
    kind: str | None = None
    """In releases whose targets are listed by `artifacts.json`."""
    tags: tuple[tuple[str, str], ...] | None = None
    """Sorted; in those listed by `artifacts-v2.json`. At most one of `kind` and `tags` is given."""


@dataclass(frozen=True, slots=True)
class Release:
    """A recorded release."""

    version: str
    sha256: ArtifactHash
    """Of the uploaded zip; of its snapshot's targets metadata where there was no zip."""
    file_name: str
    time_created_s: float
    allowed_expired: bool
    """It had expired when it was uploaded, and the operator allowed that."""
    state: ReleaseState
    artifacts: tuple[ReleaseArtifact, ...]
    generation: Generation = field(default=FIRST_GENERATION, compare=False)
    """The one that recording it led to, as the database says; the newer release has the higher."""


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """A root of trust the operator added."""

    id: str
    version: int
    """Of the root metadata."""
    content: bytes
    """The root.json, as it was sent."""
    time_added_s: float


@dataclass(frozen=True, slots=True)
class KnownCoordinator:
    """A coordinator that works on this fleet, or did."""

    id: str
    """Of its staging directory."""
    host: str | None
    """The name of the machine that it last said it is on."""
    first_seen_s: float | None
    last_seen_s: float | None
    """None, as the two above, of one whose staging is all that is known of it."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request to a sled: an entry of the ring behind `history`."""

    time_s: float
    sled_id: str
    operation: str
    """`put_config`, `list`, `put`, `copy` or `reset`."""
    generation: Generation | None = None
    artifact: ArtifactHash | None = None
    source: str | None = None
    """Where the bytes came from: the staging depot, or the id of a sled."""
    error: str | None = None
    """None when it went well."""


@dataclass(frozen=True, slots=True)
class SnapshotTurn:
    """Whether it is a coordinator's turn to make a snapshot, and how the last ones fared."""

    taken: bool
    published_at_s: float | None = None
    version: str | None = None
    """Of the one that was published last."""
    error: str | None = None
    """What failed since."""


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """A version of a snapshot that every sled is to hold."""

    name: str
    version: str
    sha256: ArtifactHash
    """Of what is stored, which is an artifact."""
    size_bytes: int
    """Of what is stored."""
    time_created_s: float
    said: Mapping[str, str]
    """By its publisher, as archives keep it: its checksum before compression, and the like."""


@dataclass(frozen=True, slots=True)
class SnapshotMade:
    """A snapshot of the database that was published."""

    version: str
    checksum: str
    """SHA-256, base64."""
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened, for the journal."""

    kind: str
    """`fleet.` and what coordinators did, `sled.` and what a sled says, or `journal.`"""
    sled_id: str | None = None
    release: str | None = None
    """Its version."""
    artifacts: tuple[ArtifactHash, ...] = ()
    """That it is about; each finds it."""
    data: Mapping[str, object] = field(default_factory=dict)
    """What else is to be said, as JSON takes it."""
    time_s: float | None = None
    """None: now."""
    source: tuple[str, int] | None = None
    """Of an event that a sled has told: its epoch and number there. Each is told once."""
