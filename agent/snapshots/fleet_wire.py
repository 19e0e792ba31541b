"""Bodies of a coordinator's API that are about snapshots: what it answers, and what is read here.

The rules are those of `agent.wire`.
"""

from __future__ import annotations

from pydantic import AwareDatetime, Field

from agent.wire.fields import Answer, Count, Sha256


class SnapshotVersionBody(Answer):
    """A version of a snapshot."""

    version: str
    sha256: Sha256 = Field(description="Of what is stored: the artifact that every sled holds.")
    stored_bytes: Count
    time_created: AwareDatetime = Field(description="When it was recorded.")
    metadata: dict[str, str] = Field(
        description="What its publisher said: `checksum` (base64 of the SHA-256) and `size` of the "
        "snapshot itself, `version`, `created`, and `compression` if it is stored compressed."
    )


class SnapshotBody(Answer):
    """A snapshot."""

    name: str
    items: tuple[SnapshotVersionBody, ...] = Field(description="Its versions, newest first.")
    depots: tuple[str, ...] = Field(
        description="Where the artifacts are fetched from: depots of sleds in service, first those "
        "that are known to hold the newest version. Not always all, and in another order each time."
    )


class SnapshotNameBody(Answer):
    """A snapshot, in short."""

    name: str
    versions: Count
    stored_bytes: Count = Field(description="Of all versions.")
    newest: SnapshotVersionBody


class SnapshotsBody(Answer):
    """Every snapshot, by name."""

    items: tuple[SnapshotNameBody, ...]
