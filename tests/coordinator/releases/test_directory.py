"""Releases in directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordinator.errors import BadRelease, TargetMismatch
from coordinator.releases.release import open_release
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import (
    NOW_S,
    ReleaseBuilder,
    small_release,
    write_files,
)
from tests.coordinator.releases.opening import contents_of, facts_of, published


@pytest.mark.parametrize("prefix", ["", "repo/"])
def test_a_release_is_read_out_of_a_directory(tmp_path: Path, prefix: str) -> None:
    release = small_release()
    path = write_files(tmp_path / "my-release", release.publish(), prefix)
    assert contents_of(path, release.trusted)["one"] == b"one of them\n"
    facts = facts_of(path, release.trusted)
    assert facts.file_name == "my-release"
    assert facts.sha256 == ArtifactHash.of(release.files["metadata/1.targets.json"])


def test_targets_may_be_in_directories_of_their_own(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("a/b/file", b"deep")
    (name,) = (path for path in release.files if path.endswith("file"))
    assert name.startswith("targets/a/b/")
    found = contents_of(published(release, tmp_path), release.trusted, version="1")
    assert found == {"a/b/file": b"deep"}


def linked(path: Path, to: Path) -> None:
    content = path.read_bytes() if path.is_file() else None
    path.rename(to)
    path.symlink_to(to)
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize("inner", ["metadata", "targets", "metadata/timestamp.json"])
def test_s4_no_symbolic_link_is_followed(tmp_path: Path, inner: str) -> None:
    release = small_release()
    path = published(release, tmp_path)
    linked(path / inner, tmp_path / "elsewhere")
    with pytest.raises(BadRelease, match=f"{inner}.* found a symbolic link"):
        facts_of(path, release.trusted)


def test_the_directory_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    release = small_release()
    link = tmp_path / "link"
    link.symlink_to(published(release, tmp_path))
    assert facts_of(link, release.trusted).version == "1.0.0"


def test_what_is_not_a_file_is_not_waited_for(tmp_path: Path) -> None:
    release = small_release()
    path = published(release, tmp_path)
    timestamp = path / "metadata" / "timestamp.json"
    timestamp.unlink()
    os.mkfifo(timestamp)
    with pytest.raises(BadRelease, match=r"timestamp\.json: expected a file, found something"):
        facts_of(path, release.trusted)
    timestamp.unlink()
    timestamp.mkdir()
    with pytest.raises(BadRelease, match=r"timestamp\.json: expected a file, found something"):
        facts_of(path, release.trusted)


def test_a_target_that_changes_after_it_was_verified_is_noticed_when_it_is_read(
    tmp_path: Path,
) -> None:
    release = ReleaseBuilder()
    release.add("file", b"12345")
    path = published(release, tmp_path)
    (file,) = (path / "targets").iterdir()
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        (target,) = opened.targets.values()
        file.write_bytes(b"12346")
        with pytest.raises(TargetMismatch, match="expected the sha256"), target.open() as reader:
            list(reader.blocks())
        file.write_bytes(b"1234")
        with pytest.raises(TargetMismatch, match="expected 5 bytes, found 4"):
            target.open()


def test_a_target_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("file", b"x" * 5000)
    path = published(release, tmp_path)
    (file,) = (path / "targets").iterdir()
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        (target,) = opened.targets.values()
        with target.open() as reader:
            assert reader.readinto(memoryview(bytearray(1000))) == 1000
            os.truncate(file, 1500)
            assert reader.readinto(memoryview(bytearray(1000))) == 500
            with pytest.raises(TargetMismatch, match="expected 5000 bytes, found 1500"):
                reader.readinto(memoryview(bytearray(1000)))


def test_a_target_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    release = ReleaseBuilder()
    release.add("file", b"x" * 2000)
    path = published(release, tmp_path)
    (file,) = (path / "targets").iterdir()
    with open_release(path, [release.trusted], now_s=NOW_S, version="1") as opened:
        (target,) = opened.targets.values()
        with target.open() as reader:
            assert reader.readinto(memoryview(bytearray(1000))) == 1000
            with file.open("ab") as growing:
                growing.write(b"more")
            with pytest.raises(TargetMismatch, match="expected 2000 bytes, found more"):
                reader.readinto(memoryview(bytearray(1000)))
