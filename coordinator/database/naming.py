"""Under which names a release has its artifacts, and where two of them disagree: pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from coordinator.errors import ReleaseConflict
from coordinator.values import ReleaseArtifact
from depot.artifact import ArtifactHash

MAX_NAMED: Final = 20
"""Differences that an error names; it counts the others."""


class Name(NamedTuple):
    """What tells a release's artifacts apart; `qualifier` is the kind or the tags, as JSON."""

    name: str
    version: str
    qualifier: str


def name_of(artifact: ReleaseArtifact) -> Name:
    """The name an artifact goes by, in a form that compares and sorts."""
    told: dict[str, Any] = {}
    if artifact.kind is not None:
        told["kind"] = artifact.kind
    if artifact.tags is not None:
        told["tags"] = [list(tag) for tag in artifact.tags]
    return Name(artifact.name, artifact.version, json.dumps(told, separators=(",", ":")))


def hash_of(name: Name) -> ArtifactHash:
    """Of bounded length and one for each name: databases index it where names are too long."""
    return ArtifactHash.of(json.dumps(name).encode())


def artifact_of(name: Name, sha256: ArtifactHash, size_bytes: int) -> ReleaseArtifact:
    """The artifact that goes by a name."""
    kind, tags = _told(name.qualifier)
    return ReleaseArtifact(name.name, name.version, sha256, size_bytes, kind, tags)


@lru_cache(maxsize=1024)  # A release has many artifacts, and few kinds of them.
def _told(qualifier: str) -> tuple[str | None, tuple[tuple[str, str], ...] | None]:
    told = json.loads(qualifier)
    tags = told.get("tags")
    return told.get("kind"), None if tags is None else tuple((key, value) for key, value in tags)


def named(version: str, artifacts: Iterable[ReleaseArtifact]) -> dict[Name, ReleaseArtifact]:
    """A release's artifacts by their names, in its order.

    Raises:
        ReleaseConflict: it has two of one name.
    """
    found: dict[Name, ReleaseArtifact] = {}
    for artifact in artifacts:
        before = found.setdefault(name_of(artifact), artifact)
        if before.sha256 != artifact.sha256:
            name = name_of(artifact)
            raise _conflict(
                version,
                version,
                [(name, before.sha256, artifact.sha256)],
                "has two artifacts named",
            )
    return found


def require_same(
    version: str, recorded: Mapping[Name, ArtifactHash], sent: Mapping[Name, ArtifactHash]
) -> None:
    """Compare a release with what is recorded under its version.

    Raises:
        ReleaseConflict: it has other contents.
    """
    _require(version, version, recorded, sent, sorted(recorded.keys() | sent.keys()))


def require_compatible(
    version: str,
    other: str,
    recorded: Mapping[Name, ArtifactHash],
    sent: Mapping[Name, ArtifactHash],
) -> None:
    """Compare a release with another one: what both name is the same artifact.

    Raises:
        ReleaseConflict: it is not.
    """
    _require(version, other, recorded, sent, sorted(recorded.keys() & sent.keys()))


def _require(
    version: str,
    other: str,
    recorded: Mapping[Name, ArtifactHash],
    sent: Mapping[Name, ArtifactHash],
    names: Iterable[Name],
) -> None:
    found = [(name, recorded.get(name), sent.get(name)) for name in names]
    if different := [each for each in found if each[1] != each[2]]:
        raise _conflict(version, other, different, "is recorded with other contents; first")


def _conflict(
    version: str,
    other: str,
    different: list[tuple[Name, ArtifactHash | None, ArtifactHash | None]],
    what: str,
) -> ReleaseConflict:
    name, recorded, sent = different[0]
    about = "" if version == other else f"release {version!r}: "
    return ReleaseConflict(
        f"{about}release {other!r} {what} {name.name!r} version {name.version!r} "
        f"{name.qualifier}: recorded {recorded or 'nothing'}, sent {sent or 'nothing'}",
        {
            "version": version,
            "recorded_version": other,
            "difference_count": len(different),
            "differences": [_described(*each) for each in different[:MAX_NAMED]],
        },
    )


def _described(
    name: Name, recorded: ArtifactHash | None, sent: ArtifactHash | None
) -> dict[str, object]:
    return {
        "name": name.name,
        "version": name.version,
        **json.loads(name.qualifier),
        "recorded_sha256": None if recorded is None else str(recorded),
        "sent_sha256": None if sent is None else str(sent),
    }
