"""`depot-coordinator snapshot`, by a configuration and without a coordinator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.snapshots.databases import require_sound
from agent.snapshots.files import FileArchive
from coordinator.cli.depot_coordinator import run
from tests.coordinator.snapshots.making import downloaded
from tests.snapshots.conftest import MakeBucket


@pytest.fixture
def config(sqlite_template: bytes, tmp_path: Path) -> Path:
    (tmp_path / "coordinator.sqlite3").write_bytes(sqlite_template)
    file = tmp_path / "coordinator.toml"
    file.write_text(
        f'[staging]\npath = "{tmp_path}/staging"\n'
        f'[snapshot]\narchive = "file://{tmp_path}/archive"\nname = "fleet"\nkeep = 2\n'
    )
    return file


def test_what_is_published_is_listed_and_downloaded(
    config: Path, archive: FileArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run(["snapshot", "publish", "--config", str(config)]) == 0
    capsys.readouterr()
    assert run(["snapshot", "publish", "--config", str(config), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert run(["snapshot", "ls", "--config", str(config), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["items"]) == 2
    assert listed["items"][0]["version"] == document["version"]
    assert listed["newest"]["checksum"] == document["checksum"]
    require_sound(downloaded(archive, tmp_path / "copy.sqlite3"))
    assert run(["snapshot", "ls", "--config", str(config)]) == 0
    assert document["version"] in capsys.readouterr().out


def test_another_name_and_archive_can_be_given(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    there = ["--archive", f"file://{tmp_path}/elsewhere", "--name", "before-upgrade"]
    assert run(["snapshot", "publish", "--config", str(config), *there]) == 0
    assert "Remote checksum: " in capsys.readouterr().out
    assert (tmp_path / "elsewhere/before-upgrade.meta.json").exists()


def test_a_directory_that_publishing_makes_is_told(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = ["--archive", f"file://{tmp_path}/misspelt", "--quiet"]
    for told in (True, False):
        assert run(["snapshot", "publish", "--config", str(config), *there]) == 0
        said = "".join(capsys.readouterr().err.split())
        assert (f"{tmp_path}/misspeltwasnotthere,andismade" in said) is told


def test_an_archive_that_nobody_names_is_usage_and_an_empty_one_is_fine(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = f"file://{tmp_path}/gone"
    assert run(["snapshot", "ls", "--config", str(config), "--archive", "ftp://x"]) == 2
    config.write_text(f'[staging]\npath = "{tmp_path}/staging"\n')
    assert run(["snapshot", "ls", "--config", str(config)]) == 2
    assert "snapshot.archive" in capsys.readouterr().err
    assert run(["snapshot", "ls", "--config", str(config), "--archive", gone]) == 0
    assert "has no version of coordinator" in capsys.readouterr().err


@pytest.mark.parametrize("versioned", [False, True])
def test_a_bucket_takes_the_database_and_gives_it_back(
    config: Path,
    tmp_path: Path,
    s3_server: str,
    make_bucket: MakeBucket,
    capsys: pytest.CaptureFixture[str],
    versioned: bool,
) -> None:
    archive = f"s3://{make_bucket(versioned)}/fleets/ours"
    config.write_text(
        f'[staging]\npath = "{tmp_path}/staging"\n'
        f'[snapshot]\narchive = "{archive}"\nendpoint = "{s3_server}"\nkeep = 2\n'
    )
    for _ in range(3):
        assert run(["snapshot", "publish", "--config", str(config)]) == 0
    capsys.readouterr()
    assert run(["snapshot", "ls", "--config", str(config), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed["items"]) == (2 if versioned else 1)

    database = tmp_path / "coordinator.sqlite3"
    database.write_bytes(b"damaged" * 1000)
    assert run(["snapshot", "restore", "--yes", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert listed["newest"]["checksum"] in said
    require_sound(database)
    assert run(["snapshot", "ls", "--config", str(config), "--archive", "s3://nowhere/x"]) == 3
