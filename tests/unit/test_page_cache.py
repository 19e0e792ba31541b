"""Files that are read from memory or not at all."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from depot.dataset.filesystem import has_page_cache
from depot.dataset.page_cache import MOST_BYTES, CachedFile
from tests.needs import need_page_cache
from tests.seccomp import CACHESTAT, NONE, OPENAT2

CONTENT = b"in memory"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    need_page_cache(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def read(path: Path, size_bytes: int = len(CONTENT)) -> bytes | None:
    return CachedFile(str(path), size_bytes, path.parent.stat().st_dev).read()


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * (MOST_BYTES // 256)])
def test_what_was_just_written_is_read(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert read(file, len(content)) == content


@pytest.mark.parametrize("wanted_bytes", [0, 1, len(CONTENT) - 1, len(CONTENT) + 1, MOST_BYTES])
def test_a_file_of_another_size_is_not(file: Path, wanted_bytes: int) -> None:
    assert read(file, wanted_bytes) is None


def test_b4_a_file_on_another_filesystem_is_not(file: Path) -> None:
    device_id = file.stat().st_dev
    assert CachedFile(str(file), len(CONTENT), device_id).read() == CONTENT
    assert CachedFile(str(file), len(CONTENT), device_id + 1).read() is None


def test_a_file_of_which_a_page_is_missing_is_not_and_no_page_is_asked_for(file: Path) -> None:
    file.write_bytes(bytes(MOST_BYTES))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(opened.fileno(), 1, 0)
    for _ in range(5):
        assert read(file, MOST_BYTES) is None
        time.sleep(0.01)  # what was asked for would have come


def test_what_has_left_the_page_cache_is_not(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for _ in range(5):
        assert read(file) is None
        time.sleep(0.01)  # what was asked for would have come
    assert file.read_bytes() == CONTENT


def test_what_is_not_there_is_not(file: Path) -> None:
    assert read(file) == CONTENT
    file.unlink()
    assert read(file) is None


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
        assert read(file, size_bytes) is None


def test_nothing_is_left_open_or_handed_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_on = []
    close = os.close

    def watched(fd: int) -> None:
        handed_on.append(os.get_inheritable(fd))
        close(fd)

    monkeypatch.setattr(os, "close", watched)
    before = os.listdir("/proc/self/fd")
    assert read(file) == CONTENT
    assert read(file, 0) is None
    assert os.listdir("/proc/self/fd") == before
    assert handed_on == [False, False]


def test_b4_no_access_is_noted(file: Path) -> None:
    if os.statvfs(file).f_flag & os.ST_NOATIME:
        pytest.skip("this filesystem notes none at all")
    os.utime(file, ns=(0, 1))
    assert read(file) == CONTENT
    assert file.stat().st_atime_ns == 0
    file.read_bytes()
    assert file.stat().st_atime_ns > 0


def test_b4_what_no_device_is_behind_is_not_believed_to_be_such_a_filesystem() -> None:
    assert not has_page_cache(Path("/proc"))


_REFUSE = """
import json, sys
from structlog.testing import capture_logs
from depot.dataset.page_cache import available
from tests.seccomp import refuse

refuse(*map(int, sys.argv[1:]))
with capture_logs() as said:
    answers = [available(), available()]
print(json.dumps([answers, said]))
"""


@pytest.mark.parametrize(
    ("call", "number"), [("openat2", OPENAT2), ("cachestat", CACHESTAT), ("none", NONE)]
)
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_where_a_call_is_refused_nothing_is_tried(
    file: Path, call: str, number: int, error: int
) -> None:
    refused = [sys.executable, "-c", _REFUSE, str(number), str(error)]
    answers, said = json.loads(subprocess.run(refused, check=True, capture_output=True).stdout)
    assert answers == [call == "none"] * 2
    told = [(entry["event"], entry["call"], entry["error"]) for entry in said]
    assert told == [("page_cache.refused", call, os.strerror(error))] * (call != "none")
