"""Targets: what metadata may say of them, and what their bytes have to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tuf.api.metadata import TargetFile

from coordinator.errors import BadRelease, TargetMismatch
from coordinator.releases.release import open_release
from coordinator.releases.repository import ReleaseLimits
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import NOW_S, ReleaseBuilder, write_files
from tests.coordinator.releases.opening import contents_of, facts_of, published


def refused(release: ReleaseBuilder, tmp_path: Path, why: str) -> None:
    with pytest.raises(BadRelease, match=why):
        facts_of(published(release, tmp_path), release.trusted, version="1")


def test_identical_bytes_under_several_names_are_one_artifact(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    for name in ("b", "a", "c"):
        release.add(name, b"same")
    path = published(release, tmp_path)
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        assert [artifact.name for artifact in opened.release.artifacts] == ["a", "b", "c"]
        (target,) = opened.targets.values()
        assert (target.sha256, target.path) == (ArtifactHash.of(b"same"), "a")


def test_each_file_is_compared_though_another_has_the_same_bytes_to_be(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("a", b"same")
    release.add("b", b"same")
    files = release.publish()
    (name,) = (path for path in files if path.endswith(".b"))
    path = write_files(tmp_path / "release", {**files, name: b"lame"})
    with pytest.raises(TargetMismatch, match="target 'b': expected the sha256"):
        facts_of(path, release.trusted, version="1")


def test_a_target_without_bytes_is_one(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("empty", b"")
    path = published(release, tmp_path)
    assert contents_of(path, release.trusted, version="1") == {"empty": b""}


def test_a_target_without_bytes_has_their_hash(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.targets.targets["lie"] = TargetFile(0, {"sha256": "0" * 64}, "lie")
    release.files[f"targets/{'0' * 64}.lie"] = b""
    with pytest.raises(TargetMismatch, match="target 'lie': expected the sha256 000"):
        facts_of(published(release, tmp_path), release.trusted, version="1")


@pytest.mark.parametrize("algorithm", ["sha512", "sha3_256", "blake2b-256", "blake2s"])
def test_every_hash_that_is_given_has_to_be_right(tmp_path: Path, algorithm: str) -> None:
    release = ReleaseBuilder()
    release.add("file", b"content", hashes=[algorithm])
    path = published(release, tmp_path)
    assert contents_of(path, release.trusted, version="1") == {"file": b"content"}
    hashes = release.targets.targets["file"].hashes
    hashes[algorithm] = "0" * len(hashes[algorithm])
    with pytest.raises(TargetMismatch, match=f"target 'file': expected the {algorithm} 000"):
        facts_of(published(release, tmp_path), release.trusted, version="1")


def test_a_file_may_be_named_by_any_of_its_hashes(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("file", b"content", hashes=["sha512"])
    files = release.publish()
    del files[f"targets/{hashlib.sha256(b'content').hexdigest()}.file"]
    files[f"targets/{hashlib.sha512(b'content').hexdigest()}.file"] = b"content"
    path = write_files(tmp_path / "release", files)
    assert contents_of(path, release.trusted, version="1") == {"file": b"content"}


def test_without_a_sha_256_a_target_is_no_artifact(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    digest = hashlib.sha512(b"content").hexdigest()
    release.targets.targets["file"] = TargetFile(7, {"sha512": digest}, "file")
    refused(release, tmp_path, "target 'file': expected a SHA-256 of 64 hex characters, found ''")


@pytest.mark.parametrize("value", ["../../../etc/passwd", "0" * 63, "g" * 64, "0" * 64 + "/"])
def test_s4_a_hash_is_a_hash_and_no_path(tmp_path: Path, value: str) -> None:
    release = ReleaseBuilder()
    release.targets.targets["file"] = TargetFile(7, {"sha256": value}, "file")
    refused(release, tmp_path, "target 'file': expected a SHA-256")


def test_s4_a_hash_of_another_kind_leads_nowhere_either(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    digest = hashlib.sha256(b"content").hexdigest()
    hashes = {"sha512": "../../outside", "sha256": digest}
    release.targets.targets["file"] = TargetFile(7, hashes, "file")
    (tmp_path / "outside.file").write_bytes(b"content")
    release.add("another", b"so that there is a directory to leave")
    with pytest.raises(TargetMismatch, match="missing"):
        facts_of(published(release, tmp_path), release.trusted, version="1")


@pytest.mark.parametrize(
    "path", ["../up", "a/../../up", "/etc/passwd", "", ".", "a//b", "a\\b", "a\nb", "x" * 1025]
)
@pytest.mark.parametrize("consistent", [True, False])
def test_s4_the_name_of_a_target_is_a_plain_path(
    tmp_path: Path, path: str, consistent: bool
) -> None:
    release = ReleaseBuilder(consistent=consistent)
    release.targets.targets[path] = TargetFile.from_data(path, b"content", ["sha256"])
    refused(release, tmp_path, "its name is not a plain relative path")


@pytest.mark.parametrize("length", [True, False])
def test_a_length_is_a_number(tmp_path: Path, length: int) -> None:
    release = ReleaseBuilder()
    release.targets.targets["file"] = TargetFile(length, {"sha256": "0" * 64}, "file")
    refused(release, tmp_path, "target 'file': expected a length in bytes, found (True|False)")


@pytest.mark.parametrize("algorithm", ["shake_128", "crc32", "../sha256"])
def test_a_hash_that_nobody_can_compare_is_refused(tmp_path: Path, algorithm: str) -> None:
    release = ReleaseBuilder()
    hashes = {"sha256": hashlib.sha256(b"").hexdigest(), algorithm: "00"}
    release.targets.targets["file"] = TargetFile(0, hashes, "file")
    refused(release, tmp_path, f"target 'file': the hash {algorithm!r} is not known here")


def test_s1_targets_have_a_bound_in_number_and_size(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("a", b"12345")
    release.add("b", b"67890")
    path = published(release, tmp_path)
    facts_of(path, release.trusted, version="1", limits=ReleaseLimits(targets=2, total_bytes=10))
    for limits in (ReleaseLimits(targets=1), ReleaseLimits(total_bytes=9)):
        with pytest.raises(BadRelease, match="2 targets of 10 bytes together; at most"):
            facts_of(path, release.trusted, version="1", limits=limits)


def test_a_reader_gives_out_the_last_bytes_only_when_all_are_right(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("file", b"good" * 1000)
    path = published(release, tmp_path)
    (file,) = (path / "targets").iterdir()
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        (target,) = opened.targets.values()
        file.write_bytes(b"evil" + b"good" * 999)
        buffer = memoryview(bytearray(1024))
        with target.open() as reader:
            assert [reader.readinto(buffer) for _ in range(3)] == [1024] * 3
            with pytest.raises(TargetMismatch, match="expected the sha256"):
                reader.readinto(buffer)


def test_a_reader_that_was_aborted_gives_up(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("file", b"good" * 1000)
    path = published(release, tmp_path)
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        (target,) = opened.targets.values()
        with target.open() as reader:
            reader.abort()
            with pytest.raises(ConnectionAbortedError):
                reader.readinto(memoryview(bytearray(10)))
