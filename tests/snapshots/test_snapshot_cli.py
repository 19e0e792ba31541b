"""`depot snapshot`: what it prints, and how it ends."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent.snapshots.files import FileArchive
from agent.snapshots.opening import open_archive
from agent.snapshots.values import Metadata
from tests.snapshots.conftest import Cli, Ended, MakeBucket
from tests.snapshots.making import checksum_of, put

CONTENT = b"what every node starts from" * 1000


@pytest.fixture
def archive(tmp_path: Path) -> FileArchive:
    return FileArchive(tmp_path / "archive")


@pytest.fixture
def download(cli: Cli, archive: FileArchive, tmp_path: Path) -> Cli:
    def invoke(*more: object) -> Ended:
        where = ("--archive", archive.url, "-o", tmp_path / "target")
        return cli("snapshot", "download", "state", *where, *more)

    return invoke


def test_every_step_is_a_line_and_the_last_one_is_json(
    download: Cli, archive: FileArchive, tmp_path: Path
) -> None:
    version = put(archive, "state", CONTENT)
    began_s = int(time.time())

    ended = download()

    assert ended.status == 0, ended.err
    assert (tmp_path / "target").read_bytes() == CONTENT
    assert f"Remote checksum: {checksum_of(CONTENT)}" in ended.lines
    assert f"Remote version: {version}" in ended.lines
    assert f"Local checksum: {checksum_of(CONTENT)}" in ended.lines
    assert "Checksum matches" in ended.lines
    assert any(line.startswith("The check took ") for line in ended.lines)
    assert ended.last["downloaded"] == "true"
    assert ended.last["compressed"] == "false"
    assert began_s <= ended.last["startTime"] <= time.time()


def test_a_second_time_nothing_is_downloaded(download: Cli, archive: FileArchive) -> None:
    put(archive, "state", CONTENT)
    download()

    ended = download()

    assert ended.status == 0
    assert any("already" in line for line in ended.lines)
    assert ended.last["downloaded"] == "false"


def test_damaged_bytes_end_with_1_and_a_json_line_all_the_same(
    download: Cli, archive: FileArchive, tmp_path: Path
) -> None:
    put(archive, "state", CONTENT, stored=b"X" + CONTENT[1:])

    ended = download()

    assert ended.status == 1
    assert "Failed to download intact snapshot" in ended.err
    assert ended.last["downloaded"] == "false"
    assert not (tmp_path / "target").exists()


def test_a_name_that_is_not_there_ends_with_1(download: Cli, archive: FileArchive) -> None:
    put(archive, "other", CONTENT)

    ended = download()

    assert ended.status == 1
    assert ended.last["result"] == "not there"
    assert f"{archive.url} has no state\n" in ended.err


def test_an_archive_that_is_not_reached_ends_with_4(download: Cli, tmp_path: Path) -> None:
    ended = download("--attempts", 1)

    assert ended.status == 4
    assert ended.last["downloaded"] == "false"


def test_a_fleet_whose_coordinator_is_not_reached_ends_with_4(cli: Cli, tmp_path: Path) -> None:
    fleet = ("--archive", "fleet+http://127.0.0.1:9")
    target = tmp_path / "target"
    ended = cli("snapshot", "download", "state", *fleet, "-o", target, "--attempts", 1)
    assert (ended.status, ended.last["downloaded"]) == (4, "false")
    target.write_bytes(CONTENT)
    ended = cli("snapshot", "publish", target, *fleet, "--name", "state")
    assert (ended.status, ended.last["published"]) == (4, "false")


def test_a_missing_checksum_is_warned_about_or_refused(
    download: Cli, archive: FileArchive, tmp_path: Path
) -> None:
    archive.put("state", [CONTENT], Metadata(version="v1"))

    refused = download("--require-checksum")
    assert refused.status == 1
    assert not (tmp_path / "target").exists()

    accepted = download()
    assert accepted.status == 0
    said = "Remote checksum is null, skipping checksum validation"
    assert said in accepted.lines
    assert said not in accepted.err, "it is said once"
    assert "warning" in accepted.err
    assert "--require-checksum" in accepted.err


def test_with_json_there_is_one_document_only(download: Cli, archive: FileArchive) -> None:
    put(archive, "state", CONTENT)

    assert json.loads(download("--json").out)["downloaded"] == "true"
    put(archive, "state", CONTENT[::-1], stored=CONTENT)
    failed = json.loads(download("--json").out)
    assert failed["error"]["exit_code"] == 1
    assert failed["downloaded"] == "false"


def test_a_target_that_cannot_be_written_ends_with_a_json_line(
    cli: Cli, archive: FileArchive, tmp_path: Path
) -> None:
    put(archive, "state", CONTENT)

    ended = cli(
        "snapshot", "download", "state", "--archive", archive.url, "-o", tmp_path / "no/target"
    )

    assert ended.status == 2
    assert ended.last["downloaded"] == "false"


@pytest.mark.parametrize(
    "wrong", ["ftp://host/x", "file://host/x", "s3://", "fleet+http://", "fleet+http://u:p@h:1"]
)
def test_what_is_no_archive_is_a_mistake_in_the_command_line(cli: Cli, wrong: str) -> None:
    assert cli("snapshot", "download", "n", "--archive", wrong, "-o", "x").status == 2


def test_a_bucket_behind_an_endpoint(
    cli: Cli, s3_server: str, make_bucket: MakeBucket, tmp_path: Path
) -> None:
    url = f"s3://{make_bucket(True)}/prefix"
    bucket = open_archive(url, s3_server)
    version = put(bucket, "state", CONTENT)
    bucket.close()

    ended = cli(
        *("snapshot", "download", "state", "--archive", url),
        *("--endpoint", s3_server, "-o", tmp_path / "target"),
    )

    assert ended.status == 0, ended.err
    assert f"Remote version: {version.id}" in ended.lines
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_a_directory_that_publishing_makes_is_told(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    where = ("--archive", f"file://{tmp_path}/misspelt", "--name", "state")
    for told in (True, False):
        ended = cli("snapshot", "publish", tmp_path / "file", *where)
        assert ended.status == 0
        assert (f"{tmp_path}/misspeltwasnotthere,andismade" in "".join(ended.err.split())) is told
