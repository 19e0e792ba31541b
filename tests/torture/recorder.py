"""`python -m tests.torture.recorder MOUNT_POINT LOG IMAGE...`: images whose writes are recorded.

A FUSE filesystem that shows some files as they are and writes down, in order, each write and each
flush of each of them. Loop devices on top turn what a filesystem asks of its disk into these. A
further file, `marks`, takes what somebody wants to be remembered between two writes; the disk whose
number is written to `death` answers nothing but EIO from then on. One thread, so the order of the
log is the order in which things happened.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import mfusepy  # type: ignore[import-untyped]

from tests.torture.write_log import Kind, Record, encode

MARKS: Final = "marks"
DEATH: Final = "death"
_CONTROLS: Final = (f"/{MARKS}", f"/{DEATH}")


class Recorder(mfusepy.Operations):  # type: ignore[misc]  # the package has no types
    """The images, numbered in the order given."""

    use_ns = True

    def __init__(self, log: Path, images: Sequence[Path]) -> None:
        self._numbers = {f"/{image.name}": number for number, image in enumerate(images)}
        self._fds = {f"/{image.name}": os.open(image, os.O_RDWR) for image in images}
        self._dead: set[str] = set()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def init(self, path: str) -> None:
        # Whoever started this waits for it.
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path in _CONTROLS:
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": 0}
        if path not in self._fds:
            raise mfusepy.FuseOSError(errno.ENOENT)
        size_bytes = os.fstat(self._fds[path]).st_size
        return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": size_bytes}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", MARKS, DEATH, *(name[1:] for name in self._numbers)]

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(self._fd(path), size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if path == f"/{MARKS}":
            self._note(Record(Kind.MARK, content=data))
        elif path == f"/{DEATH}":
            self._dead |= {p for p, number in self._numbers.items() if number == int(data)}
        else:
            os.pwrite(self._fd(path), data, offset)
            self._note(Record(Kind.WRITE, self._numbers[path], offset, data))
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        if path not in _CONTROLS:
            self._fd(path)
            self._note(Record(Kind.FLUSH, self._numbers[path]))
        return 0

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        return 0

    def _fd(self, path: str) -> int:
        if path in self._dead:
            raise mfusepy.FuseOSError(errno.EIO)
        return self._fds[path]

    def _note(self, record: Record) -> None:
        os.write(self._log, encode(record))


def main() -> None:
    mount_point, log, *images = map(Path, sys.argv[1:])
    recorder = Recorder(log, images)
    # Straight to us: a page cache in between would forget order and size of the writes.
    options: dict[str, bool] = {"direct_io": True}
    if mfusepy.fuse_version_major == 2:
        options["big_writes"] = True  # the only kind that libfuse 3 knows
    mfusepy.FUSE(recorder, str(mount_point), foreground=True, nothreads=True, **options)


if __name__ == "__main__":
    main()
