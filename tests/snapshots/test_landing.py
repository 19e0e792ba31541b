"""The file beside a target, and the step that gives it the name."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.snapshots import landing
from agent.snapshots.landing import Landing
from tests.snapshots.making import database


def test_the_target_is_the_old_file_until_it_is_the_new_one(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"older")
    with Landing(target) as file:
        file.write(b"new", 2)
        file.write(b"er", 0)
        assert target.read_bytes() == b"older"
        file.place()
    assert target.read_bytes() == b"ernew"
    assert list(tmp_path.iterdir()) == [target]


def needs_direct_writes(directory: Path) -> None:
    try:
        os.close(os.open(directory / "probe", os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"{directory} takes nothing past the page cache: {error.strerror}")


def is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)


@pytest.fixture(params=["past the page cache", "through it"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "through it":
        monkeypatch.setattr(landing, "_open_direct", lambda _fd: None)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size_bytes", [1, 4095, 4096, 4097, 3 * 8192 + 17])
@pytest.mark.parametrize("shift_bytes", [0, 8], ids=["aligned", "not aligned"])
def test_parts_of_any_size_and_alignment_are_what_was_given(
    tmp_path: Path, size_bytes: int, shift_bytes: int
) -> None:
    content = random.Random(size_bytes).randbytes(size_bytes + 8192)
    block = memoryview(mmap.mmap(-1, 1 << 16))[shift_bytes:]
    with Landing(tmp_path / "target") as file:
        for start, stop in ((8192, len(content)), (0, 8192)):
            block[: stop - start] = content[start:stop]
            file.write_aligned(block[: stop - start], start)
            block[: stop - start] = bytes(stop - start)
        file.place()
    assert (tmp_path / "target").read_bytes() == content


def test_what_a_disk_does_not_take_past_the_page_cache_goes_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_direct_writes(tmp_path)
    real, refused = os.pwrite, []

    def pwrite(fd: int, block: memoryview, offset_bytes: int) -> int:
        if is_direct(fd) and offset_bytes:
            refused.append(offset_bytes)
            raise OSError(errno.EINVAL, "expected another alignment")
        return real(fd, block[:4096], offset_bytes)  # and whatever else is written comes short

    monkeypatch.setattr(os, "pwrite", pwrite)
    block = memoryview(mmap.mmap(-1, 1 << 14))
    block[:] = content = random.Random(1).randbytes(len(block))
    with Landing(tmp_path / "target") as file:
        file.write_aligned(block, 0)
        file.write_aligned(block, len(block))
        file.place()
    assert refused == [4096]  # the disk is not asked again
    assert (tmp_path / "target").read_bytes() == content * 2


def test_a_full_disk_is_no_question_of_alignment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_direct_writes(tmp_path)
    real = os.pwrite

    def pwrite(fd: int, block: memoryview, offset_bytes: int) -> int:
        if is_direct(fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, block, offset_bytes)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with (
        Landing(tmp_path / "target") as file,
        pytest.raises(OSError, match="No space left"),
    ):
        file.write_aligned(memoryview(mmap.mmap(-1, 8192)), 0)


def test_what_is_written_past_the_page_cache_is_not_in_it(tmp_path: Path) -> None:
    needs_direct_writes(tmp_path)
    block = memoryview(mmap.mmap(-1, 8 << 20))
    fd = os.open(tmp_path / "plain", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    try:
        os.pwrite(fd, block, 0)
    finally:
        os.close(fd)
    if is_cached(tmp_path / "plain"):
        pytest.skip(f"{tmp_path} keeps in memory also what is written past the page cache")
    with Landing(tmp_path / "target") as file:
        file.write_aligned(block, 0)
        file.place()
    assert not is_cached(tmp_path / "target")


def is_cached(path: Path) -> bool:
    """Whether the middle of a file is in memory; its first bytes were looked at."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(4096)], path.stat().st_size // 2, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        # Where nothing ever waits for a disk, as on tmpfs, that cannot be asked for.
    finally:
        os.close(fd)
    return True


def test_what_need_not_be_aligned_is_never_written_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, direct = os.pwrite, []

    def pwrite(fd: int, block: memoryview, offset_bytes: int) -> int:
        direct.append(is_direct(fd))
        return real(fd, block, offset_bytes)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with Landing(tmp_path / "target") as file:
        file.write(memoryview(mmap.mmap(-1, 8192)), 0)
    assert direct == [False]  # whoever unpacks does not wait for the disk


def test_what_is_not_placed_leaves_nothing(tmp_path: Path) -> None:
    with Landing(tmp_path / "target") as file:
        file.write(b"bytes", 0)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_download_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".target.snapshot").write_bytes(b"what was left, and is longer")
    with Landing(tmp_path / "target") as file:
        file.write(b"bytes", 0)
        file.place()
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
    with Landing(link) as file:
        file.write(b"bytes", 0)
        file.place()
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

    with Landing(target) as file:
        file.write(new, 0)
        file.place()

    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.db", "state.db"]
    with closing(sqlite3.connect(target)) as placed:
        assert placed.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert placed.execute("SELECT count(*) FROM things").fetchone() == (400,)
