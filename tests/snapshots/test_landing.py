"""The file beside a target, and the step that gives it the name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.snapshots.landing import Landing
from tests.snapshots.making import database


def test_the_target_is_the_old_file_until_it_is_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"older")
    with Landing(target) as landing:
        landing.write(b"new", 2)
        landing.write(b"er", 0)
        assert target.read_bytes() == b"older"
        landing.place()
    assert target.read_bytes() == b"ernew"
    assert list(tmp_path.iterdir()) == [target]


def test_what_is_not_placed_leaves_nothing(tmp_path: Path) -> None:
    with Landing(tmp_path / "target") as landing:
        landing.write(b"bytes", 0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_download_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".target.snapshot").write_bytes(b"what was left, and is longer")
    with Landing(tmp_path / "target") as landing:
        landing.write(b"bytes", 0)
        landing.place()
    assert (tmp_path / "target").read_bytes() == b"bytes"


def test_two_downloads_of_one_target_do_not_mix(tmp_path: Path) -> None:
    with Landing(tmp_path / "target") as first:
        first.write(b"first", 0)
        with pytest.raises(FileExistsError, match="under way"):
            Landing(tmp_path / "target")
        first.place()
    assert (tmp_path / "target").read_bytes() == b"first"


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "target"
    link.symlink_to("elsewhere/file")
    with Landing(link) as landing:
        landing.write(b"bytes", 0)
        landing.place()
    assert link.is_symlink()
    assert (tmp_path / "elsewhere/file").read_bytes() == b"bytes"


def test_what_goes_wrong_beside_the_target_is_told_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    with pytest.raises(OSError, match="File name too long") as error:
        Landing(target)
    assert error.value.filename == str(target)


@pytest.mark.parametrize("what", ["directory", "missing/file"])
def test_what_cannot_be_a_file_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match=r"directory|missing"):
        Landing(tmp_path / what)


def test_a_log_of_the_old_database_is_not_applied_to_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "state.db"
    new = database(tmp_path / "new.db")
    with closing(sqlite3.connect(target)) as older:
        older.execute("PRAGMA journal_mode=WAL")
        older.execute("CREATE TABLE old (x)")
        older.execute("INSERT INTO old VALUES (1)")
        older.commit()
        kept = {name: Path(f"{target}{name}").read_bytes() for name in ("-wal", "-shm")}
    # As a process leaves it that was killed.
    for name, content in kept.items():
        Path(f"{target}{name}").write_bytes(content)

    with Landing(target) as landing:
        landing.write(new, 0)
        landing.place()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.db", "state.db"]
    with closing(sqlite3.connect(target)) as placed:
        assert placed.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert placed.execute("SELECT count(*) FROM things").fetchone() == (400,)
