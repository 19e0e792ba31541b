"""Who may sign what, and what happens when someone else did."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile

from coordinator.errors import BadRelease, Untrusted
from coordinator.releases.repository import ReleaseLimits
from coordinator.releases.trust import root_facts
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest
from tests.coordinator.releases.builder import (
    FUTURE,
    PAST,
    Files,
    ReleaseBuilder,
    signed,
    signer,
    small_release,
    write_files,
)
from tests.coordinator.releases.opening import facts_of, published


def facts_of_files(tmp_path: Path, files: Files, *roots: bytes, **options: Any) -> Any:
    return facts_of(write_files(tmp_path / "release", files), *roots, **options)


def test_without_a_trusted_root_no_release_is_taken(tmp_path: Path) -> None:
    with pytest.raises(Untrusted, match=r"no root of trust was added.*add the root\.json"):
        facts_of(published(small_release(), tmp_path))


def test_the_root_that_verifies_a_release_is_found_among_many_and_named(tmp_path: Path) -> None:
    release = small_release()
    strangers = [small_release(keys={"root": [f"s{n}"], "timestamp": [f"s{n}"]}) for n in range(3)]
    roots = [stranger.trusted for stranger in strangers]
    facts = facts_of(published(release, tmp_path), *roots[:2], release.trusted, roots[2])
    assert facts.root.index == 2
    assert facts.root.sha256 == ArtifactHash.of(release.trusted)


def test_a_root_that_is_none_keeps_no_other_from_being_tried(tmp_path: Path) -> None:
    release = small_release()
    path = published(release, tmp_path)
    assert facts_of(path, b"no root", release.trusted).root.index == 1
    with pytest.raises(Untrusted, match=r"none of 1 trusted roots.*expected a root\.json of TUF"):
        facts_of(path, b"no root")


def test_when_no_root_verifies_it_the_refusal_says_why_for_each(tmp_path: Path) -> None:
    strangers = [small_release(keys={"timestamp": [f"s{n}"]}) for n in range(7)]
    roots = [stranger.trusted for stranger in strangers]
    with pytest.raises(Untrusted) as caught:
        facts_of(published(small_release(), tmp_path), *roots)
    said = str(caught.value)
    assert said.startswith("none of 7 trusted roots verifies the release: ")
    assert said.count("timestamp.json is signed by 0 of the 1 keys it needs of root version 1") == 5
    assert str(ArtifactHash.of(roots[0]))[:12] in said
    assert said.endswith("; and 2 more")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("signers", [0, 1])
def test_fewer_signatures_than_the_threshold_are_not_enough(
    tmp_path: Path, role: str, signers: int
) -> None:
    release = ReleaseBuilder()
    release.allow(role, ["a", "b", "c"], threshold=2)
    release.sign_root()
    release.keys[role] = ["a", "b", "c"][:signers]
    files = release.publish()
    with pytest.raises(Untrusted, match=rf"{role}\.json is signed by {signers} of the 2 keys"):
        facts_of_files(tmp_path, files, release.roots[-1], version="1")


@pytest.mark.parametrize("signers", [["a", "c"], ["a", "b", "c"], ["c", "stranger", "b"]])
def test_any_keys_up_to_the_threshold_are_enough(tmp_path: Path, signers: list[str]) -> None:
    release = small_release()
    for role in ("root", "timestamp", "snapshot", "targets"):
        release.allow(role, ["a", "b", "c"], threshold=2)
        release.keys[role] = signers
    release.sign_root()
    assert facts_of(published(release, tmp_path), release.roots[-1]).version == "1.0.0"


def test_one_key_that_signs_twice_counts_once(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.allow("timestamp", ["a", "b"], threshold=2)
    release.sign_root()
    release.keys["timestamp"] = ["a"]
    files = release.publish()
    timestamp = json.loads(files["metadata/timestamp.json"])
    (signature,) = timestamp["signatures"]
    files["metadata/timestamp.json"] = json.dumps(
        {**timestamp, "signatures": [signature, signature]}
    ).encode()
    with pytest.raises(BadRelease, match="Multiple signatures found for keyid"):
        facts_of_files(tmp_path, files, release.roots[-1])
    renamed = {**signature, "keyid": signer("b").public_key.keyid}
    files["metadata/timestamp.json"] = json.dumps(
        {**timestamp, "signatures": [signature, renamed]}
    ).encode()
    with pytest.raises(Untrusted, match="signed by 1 of the 2 keys"):
        facts_of_files(tmp_path, files, release.roots[-1])


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_change_of_signed_metadata_breaks_the_chain(tmp_path: Path, role: str) -> None:
    release = small_release(hashed_meta=False)
    files = release.publish()
    (path,) = (each for each in files if each.endswith(f"{role}.json") and "metadata" in each)
    content = json.loads(files[path])
    content["signed"]["expires"] = "2099-01-01T00:00:00Z"
    files[path] = json.dumps(content).encode()
    with pytest.raises(Untrusted, match=rf"{role}\.json is signed by 0 of the 1 keys"):
        facts_of_files(tmp_path, files, release.trusted)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_metadata_is_the_very_file_that_was_listed(tmp_path: Path, role: str) -> None:
    release = small_release()
    files = release.publish()
    path = f"metadata/1.{role}.json"
    files[path] = files[path] + b"\n"
    with pytest.raises(
        Untrusted, match=rf"1\.{role}\.json is not the file that is meant: Observed"
    ):
        facts_of_files(tmp_path, files, release.trusted)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_an_old_version_under_a_new_name_is_found_out(tmp_path: Path, role: str) -> None:
    release = small_release(hashed_meta=False)
    files = release.publish()
    if role == "snapshot":
        release.timestamp.snapshot_meta = MetaFile(2)
        release.sign_timestamp()
        files["metadata/2.snapshot.json"] = files["metadata/1.snapshot.json"]
    else:
        release.snapshot.meta["targets.json"] = MetaFile(2)
        files["metadata/1.snapshot.json"] = signed(release.snapshot, ["snapshot"])
        files["metadata/2.targets.json"] = files["metadata/1.targets.json"]
    with pytest.raises(Untrusted, match=rf"2\.{role}\.json: expected version 2, found 1"):
        facts_of_files(tmp_path, files, release.trusted)


def test_metadata_of_one_role_does_not_pass_for_that_of_another(tmp_path: Path) -> None:
    release = small_release(keys={"timestamp": ["same"], "snapshot": ["same"]})
    files = release.publish()
    files["metadata/timestamp.json"] = files["metadata/1.snapshot.json"]
    with pytest.raises(BadRelease, match="expected metadata of type timestamp, found snapshot"):
        facts_of_files(tmp_path, files, release.trusted)


@pytest.mark.parametrize("path", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
def test_missing_metadata_is_named(tmp_path: Path, path: str) -> None:
    release = small_release()
    files = release.publish()
    del files[f"metadata/{path}"]
    with pytest.raises(BadRelease, match=f"metadata/{path} is missing"):
        facts_of_files(tmp_path, files, release.trusted)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"signed": {"_type": "root"}}'],
)
def test_what_is_no_metadata_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    release = small_release()
    files = {**release.publish(), "metadata/timestamp.json": content}
    with pytest.raises(BadRelease, match=r"metadata/timestamp\.json is not metadata of TUF"):
        facts_of_files(tmp_path, files, release.trusted)


@pytest.mark.parametrize(
    ("path", "limits"),
    [
        ("metadata/timestamp.json", ReleaseLimits(timestamp_bytes=100)),
        ("metadata/1.snapshot.json", ReleaseLimits(snapshot_bytes=100)),
        ("metadata/1.targets.json", ReleaseLimits(targets_bytes=100)),
        ("metadata/2.root.json", ReleaseLimits(root_bytes=100)),
    ],
)
def test_s1_metadata_is_read_up_to_a_bound(
    tmp_path: Path, path: str, limits: ReleaseLimits
) -> None:
    release = small_release()
    release.rotate()
    with pytest.raises(BadRelease, match=rf"{path}: at most 100 bytes are read, found more"):
        facts_of(published(release, tmp_path), release.trusted, limits=limits)


def test_a_release_without_consistent_snapshots_has_plain_names(tmp_path: Path) -> None:
    release = small_release(consistent=False)
    files = release.publish()
    assert {"metadata/snapshot.json", "metadata/targets.json", "targets/one.tar.gz"} <= set(files)
    assert facts_of_files(tmp_path, files, release.trusted).version == "1.0.0"


def test_the_facts_of_a_root_are_what_an_operator_compares() -> None:
    release = ReleaseBuilder(expires=FUTURE)
    release.allow("root", ["a", "b", "c"], threshold=2)
    release.rotate("root")
    facts = root_facts(release.roots[-1])
    assert (facts.version, facts.threshold) == (2, 2)
    assert facts.sha256 == ArtifactHash.of(release.roots[-1])
    assert facts.expires_s == FUTURE.timestamp()
    assert set(facts.key_ids) == {signer(name).public_key.keyid for name in "abc"}


def test_an_expired_root_may_be_added_for_expiry_is_judged_at_upload() -> None:
    assert root_facts(ReleaseBuilder(expires=PAST).trusted).expires_s == PAST.timestamp()


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"not json", small_release().publish()["metadata/timestamp.json"]]
)
def test_what_is_no_root_cannot_be_added(content: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"expected a root\.json of TUF"):
        root_facts(content)


def test_a_root_that_lacks_something_is_told_what_in_words() -> None:
    with pytest.raises(InvalidRequest, match="the root is not metadata of TUF: it has no 'signed'"):
        root_facts(b"{}")


def test_a_root_that_is_not_signed_by_itself_cannot_be_added() -> None:
    release = ReleaseBuilder()
    release.sign_root("stranger")
    with pytest.raises(InvalidRequest, match="signed by 0 of the 1 keys"):
        root_facts(release.roots[-1])


def test_a_root_with_a_key_of_a_kind_that_nobody_knows_cannot_be_added() -> None:
    metadata: Metadata[Any] = Metadata.from_bytes(ReleaseBuilder().trusted)
    content = metadata.to_dict()
    next(iter(content["signed"]["keys"].values()))["keytype"] = "crystal"
    with pytest.raises(InvalidRequest):
        root_facts(json.dumps(content).encode())


def test_a_date_is_read_in_utc_to_the_second() -> None:
    release = ReleaseBuilder(expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert root_facts(release.trusted).expires_s == 1893553445
