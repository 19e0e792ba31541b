"""A disk that fails, fills up, hangs or does something on the side, at a chosen system call."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from depot.dataset.disk import Disk

WAIT_S: Final = 20.0
"""Longest time a test waits for a signal: the end of a hang, not a measurement."""
HANG_S: Final = 1.5
"""A deadline for devices of which one hangs: far more than the other needs on a busy machine."""


@dataclass
class Rule:
    """What happens at a call; `left` counts down to the first strike, then `times` strikes."""

    call: str
    action: Callable[[], None]
    name: str
    left: int
    times: int | None
    strikes: int = 0

    def meet(self, call: str, name: str) -> bool:
        """Strike, if it is this rule's turn; tell whether it was."""
        if self.call not in (call, "any") or self.name not in name or self.times == self.strikes:
            return False
        self.left -= 1
        if self.left > 0:
            return False
        self.strikes += 1
        self.action()
        return True


class Hang:
    """A call that does not return until it is let go; then it is carried out."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._let_go = threading.Event()
        self._ended = threading.Event()

    def __call__(self) -> None:
        self._begun.set()
        self._let_go.wait(WAIT_S)

    def wait_begun(self) -> None:
        assert self._begun.wait(WAIT_S), "nothing made the call"

    @property
    def begun(self) -> bool:
        return self._begun.is_set()

    def let_go(self) -> None:
        self._let_go.set()

    def end(self) -> None:
        self._ended.set()

    def wait_ended(self) -> None:
        assert self._ended.wait(WAIT_S), "the call has not ended"


class FaultyDisk(Disk):
    """The operating system's disk, until a rule says otherwise.

    Calls are named after the methods of `Disk`; `create` is an `open` that may create or write, and
    `any` is each of them.
    A rule with a `name` strikes only where the file's name contains it.

    Attributes:
        whole: `sync_whole` can be relied on, if the filesystem is one of those.
        dirty: bytes that seem to wait to be written back.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._garbled = False
        self.whole = True
        self.dirty = 0
        self.calls: list[tuple[str, str]] = []

    def fail(
        self,
        call: str,
        error: int = errno.EIO,
        *,
        nth: int = 1,
        times: int | None = None,
        name: str = "",
    ) -> Rule:
        """From the `nth` call on, fail `times` times (None: until healed)."""

        def strike() -> None:
            raise OSError(error, os.strerror(error))

        return self.before(call, strike, nth=nth, times=times, name=name)

    def hang(self, call: str, *, nth: int = 1, name: str = "") -> Hang:
        """Hang the `nth` call."""
        hang = Hang()
        self.before(call, hang, nth=nth, times=1, name=name)
        return hang

    def before(
        self,
        call: str,
        action: Callable[[], None],
        *,
        nth: int = 1,
        times: int | None = 1,
        name: str = "",
    ) -> Rule:
        """Do something right before a call, in its thread."""
        rule = Rule(call, action, name, nth, times)
        self._rules.append(rule)
        return rule

    def turn_read_only(self) -> None:
        """Refuse every change, as after a remount."""
        for call in ("create", "write", "fallocate", "rename", "link", "unlink", "mkdir"):
            self.fail(call, errno.EROFS)

    def fill_up(self, error: int = errno.ENOSPC) -> None:
        """Have no room for a byte more."""
        for call in ("write", "fallocate"):
            self.fail(call, error)

    def garble(self) -> None:
        """Give zeros for whatever is read."""
        self._garbled = True

    def heal(self) -> None:
        self._rules.clear()
        self._garbled = False

    @contextmanager
    def _meeting(self, call: str, name: str = "") -> Iterator[None]:
        self.calls.append((call, name))
        met = [rule for rule in tuple(self._rules) if rule.meet(call, name)]
        try:
            yield
        finally:
            for rule in met:
                if isinstance(rule.action, Hang):
                    rule.action.end()

    def open(self, name: str, flags: int, mode: int = 0o600, *, dir_fd: int) -> int:
        changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        with self._meeting("create" if changes else "open", name):
            return super().open(name, flags, mode, dir_fd=dir_fd)

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        with self._meeting("pread", _name(fd)):
            content = super().pread(fd, size_bytes, offset_bytes)
            return bytes(len(content)) if self._garbled else content

    def pread_into(self, fd: int, buffer: memoryview, offset_bytes: int) -> int:
        with self._meeting("pread", _name(fd)):
            count = super().pread_into(fd, buffer, offset_bytes)
            if self._garbled:
                buffer[:count] = bytes(count)
            return count

    def write_several(self, fd: int, contents: Sequence[memoryview]) -> int:
        return self.write(fd, contents[0])  # short, so that every block meets its rule

    def write(self, fd: int, content: memoryview) -> int:
        with self._meeting("write", _name(fd)):
            return super().write(fd, content)

    def fsync(self, fd: int) -> None:
        with self._meeting("fsync", _name(fd)):
            super().fsync(fd)

    def fsync_directory(self, fd: int) -> None:
        with self._meeting("fsync_directory", _name(fd)):
            super().fsync_directory(fd)

    def sync_whole(self, fd: int) -> None:
        with self._meeting("sync_whole"):
            super().sync_whole(fd)

    def syncs_whole(self, path: Path) -> bool:
        return self.whole and super().syncs_whole(path)

    def dirty_bytes(self) -> int:
        return self.dirty

    def fallocate(self, fd: int, size_bytes: int) -> None:
        with self._meeting("fallocate", _name(fd)):
            super().fallocate(fd, size_bytes)

    def rename(self, source: str, target: str, *, dir_fd: int) -> None:
        with self._meeting("rename", f"{source} -> {target}"):
            super().rename(source, target, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        with self._meeting("unlink", name):
            super().unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, *, dir_fd: int) -> None:
        with self._meeting("mkdir", name):
            super().mkdir(name, dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int) -> os.stat_result:
        with self._meeting("stat", name):
            return super().stat(name, dir_fd=dir_fd)

    def stat_path(self, path: Path) -> os.stat_result:
        with self._meeting("stat_path", str(path)):
            return super().stat_path(path)

    def listdir(self, fd: int) -> list[str]:
        with self._meeting("listdir", _name(fd)):
            return super().listdir(fd)

    def checksums_data(self, path: Path) -> bool:
        with self._meeting("checksums_data", str(path)):
            return super().checksums_data(path)

    def is_exempt(self, fd: int) -> bool:
        with self._meeting("is_exempt", _name(fd)):
            return super().is_exempt(fd)

    def forget(self, fd: int) -> None:
        with self._meeting("forget", _name(fd)):
            super().forget(fd)

    def statvfs(self, fd: int) -> os.statvfs_result:
        with self._meeting("statvfs"):
            return super().statvfs(fd)


def _name(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
