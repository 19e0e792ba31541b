"""Opens releases as the tests mostly want them opened: now, by the roots given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.releases.release import ReleaseFacts, open_release
from coordinator.releases.repository import Repository
from coordinator.values import ReleaseArtifact
from tests.coordinator.releases.builder import NOW_S, ReleaseBuilder, write_files


def facts_of(source: Path | Repository, *roots: bytes, **options: Any) -> ReleaseFacts:
    """Open a release, and look at it."""
    with open_release(source, roots, **{"now_s": NOW_S, **options}) as opened:
        return opened.release


def contents_of(source: Path | Repository, *roots: bytes, **options: Any) -> dict[str, bytes]:
    """Open a release, and read the bytes of each of its artifacts, by name."""
    with open_release(source, roots, **{"now_s": NOW_S, **options}) as opened:
        found: dict[str, bytes] = {}
        for artifact in opened.release.artifacts:
            with opened.targets[artifact.sha256].open() as reader:
                found[artifact.name] = b"".join(reader.blocks())
        return found


def published(builder: ReleaseBuilder, directory: Path) -> Path:
    """Sign a release, and write it into a directory."""
    return write_files(directory / "release", builder.publish())


def by_name(facts: ReleaseFacts) -> Mapping[str, ReleaseArtifact]:
    return {artifact.name: artifact for artifact in facts.artifacts}
