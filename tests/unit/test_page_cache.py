"""Files that are read from memory or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from depot.dataset.page_cache import MOST_BYTES, CachedFile
from tests.needs import need_page_cache

CONTENT = b"in memory"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    need_page_cache(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * (MOST_BYTES // 256)])
def test_what_was_just_written_is_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert CachedFile(str(file), len(content)).read() == content


@pytest.mark.parametrize("wanted_bytes", [0, 1, len(CONTENT) - 1, len(CONTENT) + 1, MOST_BYTES])
def test_a_file_of_another_size_is_not(file: Path, wanted_bytes: int) -> None:
    assert CachedFile(str(file), wanted_bytes).read() is None


def test_a_file_of_which_a_page_is_missing_is_not_and_no_page_is_asked_for(file: Path) -> None:
    file.write_bytes(bytes(MOST_BYTES))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(opened.fileno(), 1, 0)
    for _ in range(5):
        assert CachedFile(str(file), MOST_BYTES).read() is None
        time.sleep(0.01)  # what was asked for would have come


def test_what_has_left_the_page_cache_is_not(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for _ in range(5):
        assert CachedFile(str(file), len(CONTENT)).read() is None
        time.sleep(0.01)  # what was asked for would have come
    assert file.read_bytes() == CONTENT


def test_what_is_not_there_is_not(file: Path) -> None:
    assert CachedFile(str(file), len(CONTENT)).read() == CONTENT
    file.unlink()
    assert CachedFile(str(file), len(CONTENT)).read() is None


def _directory(path: Path) -> None:
    path.mkdir()


def _link(path: Path) -> None:
    path.with_name("behind").write_bytes(CONTENT)
    path.symlink_to("behind")


@pytest.mark.parametrize("make", [os.mkfifo, _directory, _link])
def test_b4_what_is_no_file_is_not_waited_for(file: Path, make: Callable[[Path], None]) -> None:
    file.unlink()
    make(file)
    for size_bytes in (0, len(CONTENT)):
        assert CachedFile(str(file), size_bytes).read() is None


def test_nothing_is_left_open_and_no_access_is_noted(file: Path) -> None:
    os.utime(file, ns=(0, 1))
    before = os.listdir("/proc/self/fd")
    for size_bytes in (len(CONTENT), 0):
        CachedFile(str(file), size_bytes).read()
    assert os.listdir("/proc/self/fd") == before
    assert file.stat().st_atime_ns == 0
