"""Publishing: what is taken, what is refused, and what is stored with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.snapshots.archive import Archive
from agent.snapshots.errors import Changed, Refused, Unfit
from agent.snapshots.files import FileArchive
from agent.snapshots.publish import Publication, publish
from agent.snapshots.retention import keep_newest
from agent.snapshots.values import Head, Metadata, Version
from tests.snapshots.conftest import Cli
from tests.snapshots.making import checksum_of, database, put

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> FileArchive:
    return FileArchive(tmp_path / "archive")


def published(archive: Archive, path: Path, *, raw: bool = False, compressed: bool = False) -> Head:
    publication = Publication(path=path, name="state", raw=raw, compressed=compressed)
    return publish(archive, publication, line=lambda _: None, progress=lambda _: None, now=NOW)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zstd"])
def test_a_file_is_stored_with_what_is_said_of_it(
    archive: Archive, compressed: bool, tmp_path: Path
) -> None:
    content = database(tmp_path / "state.db")

    head = published(archive, tmp_path / "state.db", compressed=compressed)

    said = head.metadata
    assert said.checksum == checksum_of(content)
    assert said.size_bytes == len(content)
    assert said.created == NOW
    assert said.version is not None
    assert said.version.startswith("20260506T070809Z-")
    assert said.compression == ("zstd" if compressed else None)
    assert (head.stored_bytes < len(content)) == compressed


def test_any_other_file_is_taken_as_it_is(directory: FileArchive, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")

    assert published(directory, tmp_path / "file").stored_bytes == 5


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2 // 4096 * 4096)


def scramble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:8292] = bytes(100)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, scramble])
def test_a_damaged_database_is_published_only_raw(
    directory: FileArchive, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    database(path)
    damage(path)

    with pytest.raises(Unfit, match="damaged"):
        published(directory, path)
    assert directory.versions("state") == []

    assert published(directory, path, raw=True).stored_bytes == path.stat().st_size


def test_a_database_with_a_log_beside_it_is_not_published(
    directory: FileArchive, tmp_path: Path
) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE things (x)")
        connection.commit()
        with pytest.raises(Unfit, match="in use"):
            published(directory, path)

    # Closed: all of it is in the file.
    assert published(directory, path).metadata.checksum == checksum_of(path.read_bytes())


def test_a_database_in_wal_mode_is_looked_at_without_a_trace(
    directory: FileArchive, tmp_path: Path
) -> None:
    path = tmp_path / "node" / "state.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE things (x)")

    published(directory, path)

    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "zstd"])
def test_a_file_that_changes_while_it_is_sent_is_not_published(
    archive: Archive, compressed: bool, tmp_path: Path
) -> None:
    older = put(archive, "state", b"older")
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))

    def write(sent_bytes: int) -> None:
        with path.open("r+b") as file:
            file.seek(2 << 20)
            file.write(b"x")

    publication = Publication(path=path, name="state", compressed=compressed)
    with pytest.raises(Changed):
        publish(archive, publication, line=lambda _: None, progress=write, now=NOW)

    assert archive.head("state").version == older


class Forgetful(FileArchive):
    """A server that drops what is said of an object."""

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        return super().put(name, blocks, Metadata(version=metadata.version))


def test_an_archive_that_drops_the_checksum_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")

    with pytest.raises(Refused, match="metadata"):
        published(Forgetful(tmp_path / "archive"), tmp_path / "file")


def test_the_newest_versions_stay(directory: FileArchive) -> None:
    versions = [put(directory, "state", bytes(size)) for size in range(5)]
    put(directory, "other", b"of another name")

    left = keep_newest(directory, "state", 2)

    assert set(left) == set(versions[:3])
    assert [each.version for each in directory.versions("state")] == versions[:2:-1]
    assert len(directory.versions("other")) == 1


def test_the_command_publishes_and_says_so(
    cli: Cli, directory: FileArchive, tmp_path: Path
) -> None:
    content = database(tmp_path / "state.db")
    arguments = ("--archive", directory.url, "--name", "state", "--zstd", "--keep", 1)

    cli("snapshot", "publish", tmp_path / "state.db", *arguments)
    ended = cli("snapshot", "publish", tmp_path / "state.db", *arguments)

    assert ended.status == 0, ended.err

    assert "Database integrity check: ok" in ended.lines
    assert f"Local checksum: {checksum_of(content)}" in ended.lines
    assert f"Remote checksum: {checksum_of(content)}" in ended.lines
    assert "Deleted 1 older version" in ended.lines
    assert ended.last["published"] == "true"
    assert ended.last["compressed"] == "true"
    assert len(directory.versions("state")) == 1
    assert (
        cli("snapshot", "download", "state", *arguments[:2], "-o", tmp_path / "target").last[
            "compressed"
        ]
        == "true"
    )
    assert (tmp_path / "target").read_bytes() == content


def test_the_command_ends_with_1_and_a_json_line_for_a_damaged_database(
    cli: Cli, directory: FileArchive, tmp_path: Path
) -> None:
    database(tmp_path / "state.db")
    cut(tmp_path / "state.db")

    ended = cli(
        *("snapshot", "publish", tmp_path / "state.db"),
        *("--archive", directory.url, "--name", "state"),
    )

    assert ended.status == 1
    assert ended.last["published"] == "false"
    assert "damaged" in ended.err
