"""From the root that is trusted to the one that signed the release."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.errors import BadRelease, Untrusted
from coordinator.releases.repository import ReleaseLimits
from tests.coordinator.releases.builder import (
    PAST,
    ReleaseBuilder,
    signed,
    small_release,
    write_files,
)
from tests.coordinator.releases.opening import facts_of, published


def rotated(times: int) -> ReleaseBuilder:
    """A release whose root has had another key each time."""
    release = small_release()
    for number in range(times):
        previous = release.keys["root"]
        release.allow("root", [f"root-{number}"])
        release.rotate(*previous)
    return release


def test_a_chain_of_roots_is_followed_to_its_end(tmp_path: Path) -> None:
    release = rotated(5)
    path = published(release, tmp_path)
    for known, root in enumerate(release.roots):
        facts = facts_of(path, root)
        assert facts.root.version == 6
        assert facts.version == "1.0.0", f"from root {known + 1}"


def test_keys_of_other_roles_may_change_with_the_root(tmp_path: Path) -> None:
    release = small_release()
    for role in ("timestamp", "snapshot", "targets"):
        release.allow(role, [f"new-{role}", "another"], threshold=2)
    release.rotate()
    assert facts_of(published(release, tmp_path), release.trusted).root.version == 2


def test_what_a_revoked_key_signs_is_not_trusted(tmp_path: Path) -> None:
    release = small_release()
    release.allow("targets", ["new"])
    release.rotate()
    release.keys["targets"] = ["targets"]
    with pytest.raises(
        Untrusted, match=r"targets\.json is signed by 0 of the 1 keys it needs of root version 2"
    ):
        facts_of(published(release, tmp_path), release.trusted)


def test_a_successor_that_the_predecessor_did_not_sign_is_refused(tmp_path: Path) -> None:
    release = small_release()
    release.allow("root", ["usurper"])
    release.rotate()
    with pytest.raises(
        Untrusted, match=r"2\.root\.json is signed by 0 of the 1 keys it needs of root version 1"
    ):
        facts_of(published(release, tmp_path), release.trusted)


def test_a_successor_that_does_not_sign_itself_is_refused(tmp_path: Path) -> None:
    release = small_release()
    release.allow("root", ["absent"])
    release.root.version += 1
    release.sign_root("root")
    with pytest.raises(
        Untrusted, match=r"2\.root\.json is signed by 0 of the 1 keys it needs of root version 2"
    ):
        facts_of(published(release, tmp_path), release.trusted)


def test_a_threshold_of_the_root_counts_for_its_successor(tmp_path: Path) -> None:
    release = small_release()
    release.allow("root", ["a", "b", "c"], threshold=2)
    release.sign_root()
    trusted = release.roots[-1]
    release.keys["root"] = ["a"]
    release.rotate()
    with pytest.raises(Untrusted, match=r"2\.root\.json is signed by 1 of the 2 keys"):
        facts_of(published(release, tmp_path), trusted)


@pytest.mark.parametrize("claimed", [1, 3])
def test_a_root_has_the_version_that_its_name_says(tmp_path: Path, claimed: int) -> None:
    release = small_release()
    release.root.version = claimed
    files = release.publish()
    files["metadata/2.root.json"] = signed(release.root, ["root"])
    with pytest.raises(Untrusted, match=rf"2\.root\.json has version {claimed}"):
        facts_of(write_files(tmp_path / "release", files), release.trusted)


def test_a_gap_in_the_chain_ends_it(tmp_path: Path) -> None:
    release = rotated(3)
    release.allow("timestamp", ["newest"])
    release.rotate()
    files = release.publish()
    del files["metadata/3.root.json"]
    with pytest.raises(Untrusted, match="of root version 2"):
        facts_of(write_files(tmp_path / "release", files), release.trusted)


def test_a_root_newer_than_the_release_knows_still_verifies_it(tmp_path: Path) -> None:
    release = rotated(2)
    files = release.publish()
    newest = release.roots[-1]
    del files["metadata/2.root.json"], files["metadata/3.root.json"]
    path = write_files(tmp_path / "release", files)
    assert facts_of(path, newest).root.version == 3


def test_a_root_that_the_release_brings_is_not_trusted_for_that(tmp_path: Path) -> None:
    release = small_release(keys={role: ["evil"] for role in ("root", "timestamp", "snapshot")})
    with pytest.raises(Untrusted):
        facts_of(published(release, tmp_path), small_release().trusted)


def test_roots_on_the_way_may_have_expired(tmp_path: Path) -> None:
    release = small_release(expires=PAST)
    release.root.expires = PAST
    release.rotate()
    for what in (release.root, release.targets, release.snapshot, release.timestamp):
        what.expires = what.expires.replace(year=what.expires.year + 1)
    release.rotate()
    assert facts_of(published(release, tmp_path), release.trusted).expired == ()


def test_s1_the_chain_has_a_bound(tmp_path: Path) -> None:
    release = rotated(4)
    path = published(release, tmp_path)
    assert facts_of(path, release.trusted, limits=ReleaseLimits(rotations=4)).root.version == 5
    with pytest.raises(BadRelease, match="more than 3 roots follow the trusted one"):
        facts_of(path, release.trusted, limits=ReleaseLimits(rotations=3))
