"""What every archive does alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.snapshots.archive import Archive
from agent.snapshots.errors import Gone, InvalidArchive, Refused, Unreachable
from agent.snapshots.files import FileArchive
from agent.snapshots.opening import open_archive
from agent.snapshots.s3 import MULTIPART_BYTES
from agent.snapshots.values import Metadata, Version
from tests.snapshots.making import metadata_of, put, read


def test_the_head_says_what_was_put_with_it(archive: Archive) -> None:
    metadata = metadata_of(b"some bytes", compression="zstd")

    version = archive.put("node/state", [b"other", b"", b"bytes"], metadata)
    head = archive.head("node/state")

    assert head.version == version
    assert head.stored_bytes == len(b"otherbytes")
    assert head.metadata == metadata


def test_nothing_is_a_snapshot_too(archive: Archive) -> None:
    version = put(archive, "empty", b"")

    assert archive.head("empty").stored_bytes == 0
    assert read(archive, version, 0, 0) == b""


def test_a_range_of_a_version_is_read(archive: Archive) -> None:
    content = bytes(range(256)) * 8192
    version = put(archive, "name", content)

    assert read(archive, version, 0, len(content)) == content
    assert read(archive, version, 1_048_570, 1_048_590) == content[1_048_570:1_048_590]


def test_a_version_stays_what_it_was_when_a_newer_one_is_put(
    archive: Archive, keeps_versions: bool
) -> None:
    older = put(archive, "name", b"older" * 1000)
    newer = put(archive, "name", b"newer" * 1000)

    assert archive.head("name").version == newer
    assert read(archive, newer, 0, 5) == b"newer"
    if keeps_versions:
        assert read(archive, older, 0, 5) == b"older"
    else:
        with pytest.raises(Gone):
            read(archive, older, 0, 5)


def test_versions_are_listed_with_the_newest_first(archive: Archive, keeps_versions: bool) -> None:
    put(archive, "name.other", b"of another name")
    put(archive, "other", b"of another name")
    versions = [put(archive, "name", bytes(size)) for size in (1, 2, 3)]

    listed = archive.versions("name")

    assert [each.version for each in listed] == versions[::-1][: 3 if keeps_versions else 1]
    assert listed[0].stored_bytes == 3
    assert archive.versions("nothing") == []


def test_an_old_version_can_be_deleted_and_no_other_leaves(
    archive: Archive, keeps_versions: bool
) -> None:
    old, middle, newest = (put(archive, "name", bytes(size)) for size in (1, 2, 3))

    archive.delete(old)
    archive.delete(old)

    left = [each.version for each in archive.versions("name")]
    assert left == ([newest, middle] if keeps_versions else [newest])
    with pytest.raises(Gone):
        read(archive, old, 0, 1)


def test_the_newest_version_is_never_deleted(archive: Archive) -> None:
    newest = put(archive, "name", b"bytes")

    with pytest.raises(Refused):
        archive.delete(newest)

    assert read(archive, newest, 0, 5) == b"bytes"


def test_what_is_not_there_is_gone(archive: Archive) -> None:
    put(archive, "name", b"bytes")

    with pytest.raises(Gone):
        archive.head("other")
    with pytest.raises(Gone):
        read(archive, Version("other", None, '"tag"'), 0, 1)
    with pytest.raises(Gone):
        read(archive, Version("name", "no-such-version", '"tag"'), 0, 1)


@pytest.mark.parametrize("size_bytes", [10, MULTIPART_BYTES + 1], ids=["at-once", "in-parts"])
def test_a_source_that_fails_at_its_end_publishes_nothing(
    archive: Archive, size_bytes: int
) -> None:
    older = put(archive, "name", b"older")

    def failing() -> Iterator[bytes]:
        yield bytes(size_bytes)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        archive.put("name", failing(), metadata_of(b"newer"))

    assert archive.head("name").version == older
    assert [each.version for each in archive.versions("name")] == [older]


def test_metadata_of_somebody_else_is_let_be(archive: Archive) -> None:
    archive.put("name", [b"bytes"], Metadata(version="v1"))

    assert archive.head("name").metadata == Metadata(version="v1")


@pytest.mark.parametrize(
    "url",
    [
        "/a/directory",
        "file://directory",
        "http://host/bucket",
        "s3://",
        "s3://user:secret@bucket",
        "s3://bucket/prefix?x=1",
        "s3://bucket/a/../b",
    ],
)
def test_what_is_no_archive_is_said_to_be_none(url: str) -> None:
    with pytest.raises(InvalidArchive):
        open_archive(url)


def test_a_directory_that_is_not_there_is_not_reached(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        FileArchive(tmp_path / "unmounted").head("name")
