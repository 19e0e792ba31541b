"""A release that has expired is refused, unless that is allowed; then its record says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from coordinator.errors import Expired, Untrusted
from tests.coordinator.releases.builder import (
    FUTURE,
    NOW_S,
    PAST,
    ReleaseBuilder,
    small_release,
)
from tests.coordinator.releases.opening import facts_of, published

Part = Root | Timestamp | Snapshot | Targets
PARTS: dict[str, Callable[[ReleaseBuilder], Part]] = {
    "1.root.json": lambda release: release.root,
    "timestamp.json": lambda release: release.timestamp,
    "1.snapshot.json": lambda release: release.snapshot,
    "1.targets.json": lambda release: release.targets,
    "1.extra.json": lambda release: release.roles["extra"],
}


def release_with_an_expired(part: str) -> ReleaseBuilder:
    release = small_release()
    release.delegate("extra", ["*"])
    PARTS[part](release).expires = PAST
    release.sign_root()
    return release


@pytest.mark.parametrize("part", PARTS)
def test_each_expired_part_is_refused_and_named(tmp_path: Path, part: str) -> None:
    release = release_with_an_expired(part)
    said = f"metadata of the release has expired: {part} on 2027-01-14T08:00:00Z"
    with pytest.raises(Expired) as caught:
        facts_of(published(release, tmp_path), release.roots[-1])
    assert str(caught.value) == said


@pytest.mark.parametrize("part", PARTS)
def test_each_expired_part_can_be_allowed_and_is_recorded(tmp_path: Path, part: str) -> None:
    release = release_with_an_expired(part)
    facts = facts_of(published(release, tmp_path), release.roots[-1], allow_expired=True)
    assert facts.allowed_expired
    assert facts.expired == (f"{part} on 2027-01-14T08:00:00Z",)


def test_metadata_expires_at_its_second_and_not_before(tmp_path: Path) -> None:
    release = small_release()
    path = published(release, tmp_path)
    facts_of(path, release.trusted, now_s=FUTURE.timestamp() - 1)
    with pytest.raises(Expired):
        facts_of(path, release.trusted, now_s=FUTURE.timestamp())


def test_allowing_expiry_allows_nothing_else(tmp_path: Path) -> None:
    release = small_release(expires=PAST)
    release.keys["snapshot"] = ["stranger"]
    with pytest.raises(Untrusted, match=r"snapshot\.json is signed by 0 of the 1 keys"):
        facts_of(published(release, tmp_path), release.trusted, allow_expired=True)


def test_a_root_by_which_nothing_has_expired_is_preferred(tmp_path: Path) -> None:
    release = small_release()
    current = release.trusted
    release.root.expires = PAST
    release.sign_root()
    expired = release.roots[-1]
    path = published(release, tmp_path)
    facts = facts_of(path, expired, current, now_s=NOW_S)
    assert (facts.root.index, facts.allowed_expired) == (1, False)
