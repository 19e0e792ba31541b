"""An archive in a directory: what lies there, and what was left there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.snapshots.errors import Gone, Malformed, Truncated
from agent.snapshots.files import FileArchive
from agent.snapshots.values import Metadata
from tests.snapshots.making import checksum_of, metadata_of, put, read


@pytest.fixture
def archive(tmp_path: Path) -> FileArchive:
    return FileArchive(tmp_path / "archive")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def test_the_newest_and_its_sidecar_lie_under_the_name(archive: FileArchive, place: Path) -> None:
    put(archive, "a/name", b"older")
    put(archive, "a/name", b"newer")

    assert (place / "a/name").read_bytes() == b"newer"
    said = json.loads((place / "a/name.meta.json").read_text())
    assert said["checksum"] == str(checksum_of(b"newer"))
    assert said["size"] == 5


def test_a_file_that_somebody_copied_there_is_read(archive: FileArchive, place: Path) -> None:
    place.mkdir()
    (place / "name").write_bytes(b"bytes")
    bare = archive.head("name")
    (place / "name.meta.json").write_text(json.dumps({"checksum": str(checksum_of(b"bytes"))}))
    head = archive.head("name")

    assert bare.metadata == Metadata()
    assert head.metadata == Metadata(checksum=checksum_of(b"bytes"))
    assert read(archive, head.version, 1, 3) == b"yt"
    assert [each.version for each in archive.versions("name")] == [head.version]


def test_a_file_that_was_replaced_is_not_the_version_that_it_was(
    archive: FileArchive, place: Path
) -> None:
    place.mkdir()
    (place / "name").write_bytes(b"older")
    older = archive.head("name").version
    (place / "new").write_bytes(b"newer")
    (place / "new").replace(place / "name")

    with pytest.raises(Gone):
        read(archive, older, 0, 5)


def test_a_file_gives_way_to_what_is_published(archive: FileArchive, place: Path) -> None:
    place.mkdir()
    (place / "name").write_bytes(b"older")
    (place / "name.meta.json").write_text("{}")

    newer = put(archive, "name", b"newer")

    assert archive.head("name").version == newer
    assert (place / "name").read_bytes() == b"newer"


def test_a_version_that_was_cut_is_truncated(archive: FileArchive, place: Path) -> None:
    version = put(archive, "name", bytes(10_000))
    with (place / "name").open("r+b") as file:
        file.truncate(4096)

    with pytest.raises(Truncated):
        read(archive, version, 0, 10_000)


def test_what_a_dead_publisher_left_is_no_version_and_goes(
    archive: FileArchive, place: Path
) -> None:
    older = put(archive, "name", b"older")
    left = place / "name.versions/.incoming-0123"
    left.mkdir()
    (left / "data").write_bytes(b"half")

    assert [each.version for each in archive.versions("name")] == [older]
    put(archive, "name", b"newer")

    assert not left.exists()


def test_a_publisher_that_died_before_the_last_step_changed_nothing(
    archive: FileArchive, place: Path
) -> None:
    older = put(archive, "name", b"older")

    # What a kill between the rename of the version and the swap of the link leaves.
    staged = place / "name.versions/v999"
    staged.mkdir()
    (staged / "data").write_bytes(b"newer")
    (staged / "meta.json").write_text("{}")

    assert archive.head("name").version == older
    assert archive.versions("name")[0].version == older


@pytest.mark.parametrize("said", ["{", "[]", '{"checksum": "abc"}', '{"size": "many"}'])
def test_a_sidecar_that_makes_no_sense_is_not_taken_for_none(
    archive: FileArchive, place: Path, said: str
) -> None:
    archive.put("name", [b"bytes"], metadata_of(b"bytes"))
    (place / "name.meta.json").write_text(said)

    with pytest.raises(Malformed):
        archive.head("name")
