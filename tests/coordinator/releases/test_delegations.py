"""Targets of delegated roles: which count, and whose word on them does."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile

from coordinator.errors import BadRelease, Untrusted
from coordinator.releases.repository import ReleaseLimits
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import ReleaseBuilder, signed, write_files
from tests.coordinator.releases.opening import by_name, contents_of, facts_of, published


def names(release: ReleaseBuilder, tmp_path: Path) -> list[str]:
    facts = facts_of(published(release, tmp_path), release.trusted, version="1")
    return [artifact.name for artifact in facts.artifacts]


def test_targets_of_delegated_roles_are_targets_of_the_release(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("top", b"top")
    release.delegate("team/a", ["a/*"])
    release.delegate("inner", ["a/*"], by="team/a", keys=["x", "y"], threshold=2)
    release.add("a/one", b"one", role="team/a")
    release.add("a/two", b"two", role="inner")
    found = contents_of(published(release, tmp_path), release.trusted, version="1")
    assert found == {"top": b"top", "a/one": b"one", "a/two": b"two"}


def test_what_a_role_lists_without_being_asked_for_it_does_not_count(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["a/*"])
    release.delegate("deep", ["*/*"], by="a")
    release.add("a/one", b"one", role="a")
    release.add("b/one", b"not a's", role="a")
    release.add("b/two", b"not for those whom a asks", role="deep")
    assert names(release, tmp_path) == ["a/one"]


def test_other_entries_of_the_snapshot_are_ignored(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("top", b"top")
    release.snapshot.meta["nobody.json"] = MetaFile(1)
    release.snapshot.meta["../../etc/passwd"] = MetaFile(7)
    assert names(release, tmp_path) == ["top"]


def test_the_first_role_that_may_speak_for_a_target_is_believed(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    for role in ("first", "second"):
        release.delegate(role, ["*"])
        release.add("file", role.encode(), role=role)
    facts = facts_of(published(release, tmp_path), release.trusted, version="1")
    assert by_name(facts)["file"].sha256 == ArtifactHash.of(b"first")
    release.add("file", b"top")
    facts = facts_of(published(release, tmp_path), release.trusted, version="1")
    assert by_name(facts)["file"].sha256 == ArtifactHash.of(b"top")


def test_nobody_is_asked_after_a_terminating_delegation(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("ending", ["a-*"], terminating=True)
    release.delegate("later", ["*"])
    release.add("a-file", b"not there for anyone", role="later")
    release.add("b-file", b"there", role="later")
    assert names(release, tmp_path) == ["b-file"]


def test_roles_that_delegate_in_a_circle_are_each_asked_once(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["*"])
    release.delegate("b", ["*"], by="a")
    release.delegate("a", ["*"], by="b")
    release.add("file", b"file", role="b")
    assert names(release, tmp_path) == ["file"]


def test_a_terminating_delegation_ends_the_search_for_those_who_asked_before(
    tmp_path: Path,
) -> None:
    release = ReleaseBuilder()
    release.delegate("first", ["*"])
    release.delegate("inner", ["a-*"], by="first", terminating=True)
    release.delegate("later", ["*"])
    release.add("a-file", b"not there for anyone", role="later")
    release.add("b-file", b"there", role="later")
    assert names(release, tmp_path) == ["b-file"]


def test_a_circle_of_roles_does_not_keep_others_from_being_asked(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["*"])
    release.delegate("b", ["*"], by="a")
    release.delegate("a", ["*"], by="b")
    release.delegate("later", ["*"])
    release.add("file", b"file", role="later")
    assert names(release, tmp_path) == ["file"]


@pytest.mark.parametrize("signers", [[], ["x"], ["x", "stranger"]])
def test_a_delegated_role_has_a_threshold_of_its_own(tmp_path: Path, signers: list[str]) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["*"], keys=["x", "y"], threshold=2)
    release.keys["a"] = signers
    with pytest.raises(
        Untrusted, match=r"1\.a\.json is signed by \d of the 2 keys it needs of targets version 1"
    ):
        names(release, tmp_path)


def test_each_delegation_to_a_role_is_verified_by_whoever_makes_it(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["*"])
    release.delegate("b", ["*"], keys=["b"])
    release.delegate("a", ["*"], by="b", keys=["other"])
    release.keys["a"] = ["delegated"]
    with pytest.raises(Untrusted, match=r"1\.a\.json is signed by 0 of the 1 keys"):
        names(release, tmp_path)


def test_a_delegated_role_is_the_file_and_version_that_the_snapshot_lists(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("a", ["*"])
    files = release.publish()
    role = release.roles["a"]
    role.version = 2
    files["metadata/1.a.json"] = signed(role, ["delegated"])
    with pytest.raises(Untrusted, match=r"1\.a\.json is not the file that is meant"):
        facts_of(write_files(tmp_path / "release", files), release.trusted)


def test_a_role_that_is_delegated_to_and_in_no_snapshot_is_named(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.delegate("forgotten", ["*"])
    del release.roles["forgotten"]
    with pytest.raises(
        BadRelease, match="the role 'forgotten' is delegated to, and the snapshot does"
    ):
        names(release, tmp_path)


@pytest.mark.parametrize("role", ["../../up", "..", "a/b", "a b", "%2e", "ü", "/etc/passwd"])
def test_s4_the_name_of_a_role_leads_nowhere(tmp_path: Path, role: str) -> None:
    release = ReleaseBuilder()
    release.delegate(role, ["*"])
    release.add("file", b"file", role=role)
    path = published(release, tmp_path / "deep" / "er")
    assert {each.name for each in (tmp_path / "deep" / "er").iterdir()} == {"release"}
    facts = facts_of(path, release.trusted, version="1")
    assert [artifact.name for artifact in facts.artifacts] == ["file"]


def test_hash_bins_that_were_filled_are_read_and_the_others_not_asked_for(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    bins = release.delegate_bins(bit_length=32)
    for path in ("one", "two"):
        role = bins.get_role_for_target(path)
        release.bin(role)
        release.add(path, path.encode(), role=role)
    release.add("three", b"in a bin of others", role=bins.get_role_for_target("one"))
    assert names(release, tmp_path) == ["one", "two"]


def test_s1_roles_have_a_bound(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    for number in range(10):
        release.delegate(f"role-{number}", ["*"])
    path = published(release, tmp_path)
    facts_of(path, release.trusted, version="1", limits=ReleaseLimits(roles=11))
    with pytest.raises(BadRelease, match="more than 10 roles are delegated to"):
        facts_of(path, release.trusted, version="1", limits=ReleaseLimits(roles=10))
