"""A filesystem that passes everything through to a directory, until one call is to go wrong.

Run as a program with the directory and the mount point, by `tests.torture.fault_mount`. Commands
come as lines of JSON on stdin, each answered by one on stdout: a fault (see `Fault`) arms it and
starts counting, `null` lifts it and says what was met, `"met"` says so in between. At the end of
stdin it unmounts itself, so that nothing stays mounted whatever becomes of its owner. A list of two
directories asks what would be left in one, were the power to go now, and has it copied to the other
one: what was there when the fault was armed, and since then what no failed sync has lost.

The kernel keeps back neither attributes nor pages, so that each system call on the mount is seen
here as what it is. It does know the names that it has met, as it does on any local filesystem, so
what is on the mount is renamed and removed by way of the mount. Locks are local to the mount. What
the filesystem says of its room is made up and small: a dataset's reserve follows it.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import mfusepy  # type: ignore[import-untyped]

from tests.torture.lost_syncs import LostSyncs

TOTAL_BYTES: Final = 64 << 20
_UNIT_BYTES: Final = 4096
_LOOK_S: Final = 1.0
_MOST_BYTES: Final = 128 << 10
"""Of one read or write: what any libfuse does, so that the calls of an operation are as many."""
_CHANGES: Final = frozenset(
    {"create", "write", "rename", "unlink", "mkdir", "fallocate", "truncate", "chmod"}
)
_GROUPS: Final[Mapping[str, frozenset[str]]] = {
    "change": _CHANGES,
    "grow": frozenset({"create", "write", "mkdir", "fallocate"}),
    "any": _CHANGES
    | {"open", "read", "fsync", "fsyncdir", "getattr", "opendir", "readdir", "statfs", "flush"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        call: a callback's name or a group: `change`, `grow` (what takes room), `any`.
        effect: `error` (number `error`), `short` (half of a read or write), `delay` (of `delay_s`
            seconds), `hang` (until lifted), or `beside`: an error for which files are synced and
            renamed slowly, `delay_s` each, so that two names are given side by side: the sync of
            the first fails, and that of the second, which it lost too, does not.
        nth: the first call that is struck, counted from when the fault was armed.
        times: how many are struck; None: all from then on.
        under: only calls on this path of the mount, or below it.
    """

    call: str
    effect: str
    nth: int = 1
    times: int | None = 1
    error: int = 0
    delay_s: float = 0.0
    under: str = "/"

    def concerns(self, call: str, path: str) -> bool:
        """Tell whether a call is one of those that are counted."""
        if call != self.call and call not in _GROUPS.get(self.call, ()):
            return False
        # No local filesystem waits for its disk when a file is closed that was synced or only read.
        if call == "flush" and self.effect == "hang":
            return False
        return self.under == "/" or path == self.under or path.startswith(self.under + "/")


class Armed:
    """One fault, armed until lifted; counts what it meets."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.struck: list[str] = []
        self.calls: Counter[str] = Counter()
        self._count = 0
        self._lock = threading.Lock()
        self._lifted = threading.Event()

    def meet(self, call: str, path: str) -> bool:
        """Count a call and strike if it is time; True: it is to be cut short.

        Raises:
            OSError: as the fault says.
        """
        if not self._strikes(call, path):
            self._stand_beside(call, path)
            return False
        match self.fault.effect:
            case "error" | "beside":
                raise OSError(self.fault.error, os.strerror(self.fault.error))
            case "delay":
                time.sleep(self.fault.delay_s)
            case "hang":
                self._lifted.wait()
            case _:
                pass
        return self.fault.effect == "short"

    def _stand_beside(self, call: str, path: str) -> None:
        fault = self.fault
        slow = call in ("fsync", "rename") or fault.concerns(call, path)
        if fault.effect == "beside" and slow:
            self._lifted.wait(fault.delay_s)

    def lift(self) -> dict[str, object]:
        """Let go of what hangs; what was met so far."""
        self._lifted.set()
        return self.met()

    def met(self) -> dict[str, object]:
        """What was met so far."""
        with self._lock:
            return {"struck": list(self.struck), "calls": dict(self.calls)}

    def _strikes(self, call: str, path: str) -> bool:
        fault = self.fault
        with self._lock:
            if self._lifted.is_set() or not fault.concerns(call, path):
                return False
            self.calls[call] += 1
            self._count += 1
            if self._count < fault.nth or len(self.struck) == fault.times:
                return False
            self.struck.append(f"{call} {path}")
            return True


class FaultFs(mfusepy.Operations):  # type: ignore[misc]
    """The callbacks, named and called as libfuse does."""

    use_ns = True
    # Files that were unlinked while open have no path: all they need is their descriptor.
    flag_nopath = True
    flag_nullpath_ok = True

    def __init__(self, backing: Path) -> None:
        self._backing = str(backing)
        self._armed: Armed | None = None
        self._opened: dict[int, str] = {}
        self._syncs = LostSyncs(backing.with_name("replaced"))

    def init_with_config(self, connection: Any, _config: Any) -> None:
        if connection is not None and mfusepy.fuse_version_major == 3:
            connection.max_read = connection.max_write = _MOST_BYTES

    def arm(self, fault: Fault | None) -> dict[str, object]:
        """Replace the fault; what the one before it met."""
        if fault is not None:
            self._syncs.begin()
        before, self._armed = self._armed, None if fault is None else Armed(fault)
        return {} if before is None else before.lift()

    def met(self) -> dict[str, object]:
        """What the fault that is armed has met so far."""
        return {} if self._armed is None else self._armed.met()

    def copy_after_cut(self, source: Path, target: Path) -> dict[str, object]:
        """Copy what would be left of a directory of the backing one, if something is lost."""
        return {"lost": self._syncs.copy_after_cut(source, target)}

    def _sync(self, call: str, path: str | None, fd: int) -> int:
        try:
            self._meet(call, path, fd)
        except InterruptedError:  # not one that failed: Python makes it again, and rightly so
            raise
        except OSError:
            self._syncs.sync(fd, failed=True)
            raise
        os.fsync(fd)
        self._syncs.sync(fd, failed=False)
        return 0

    def _at(self, path: str) -> str:
        return self._backing + path

    def _meet(self, call: str, path: str | None, fd: int = -1) -> bool:
        armed = self._armed
        if armed is None:
            return False
        return armed.meet(call, path or self._opened.get(fd, "/?"))

    def _keep(self, path: str, fd: int) -> int:
        self._opened[fd] = path
        return fd

    # Names

    def getattr(self, path: str | None, fh: int | None = None) -> dict[str, Any]:
        self._meet("getattr", path, -1 if fh is None else fh)
        found = os.lstat(self._at(path)) if path else os.fstat(fh or 0)
        names = ("st_mode", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks")
        times = {f"st_{x}time": getattr(found, f"st_{x}time_ns") for x in "amc"}
        return {name: getattr(found, name) for name in names} | times

    def mkdir(self, path: str, mode: int) -> int:
        self._meet("mkdir", path)
        os.mkdir(self._at(path), mode)
        return 0

    def rename(self, old: str, new: str) -> int:
        self._meet("rename", old)
        self._syncs.give_name(self._at(new))
        os.rename(self._at(old), self._at(new))
        self._syncs.take_name(self._at(old))
        return 0

    def unlink(self, path: str) -> int:
        self._meet("unlink", path)
        os.unlink(self._at(path))
        self._syncs.take_name(self._at(path))
        return 0

    def rmdir(self, path: str) -> int:
        self._meet("unlink", path)
        os.rmdir(self._at(path))
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def chmod(self, path: str | None, mode: int) -> int:
        self._meet("chmod", path)
        if path is not None:
            os.chmod(self._at(path), mode)
        return 0

    def utimens(self, path: str | None, times: tuple[int, int] | None = None) -> int:
        if path is not None and times is not None:
            os.utime(self._at(path), ns=times)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        self._meet("statfs", path)
        blocks = TOTAL_BYTES // _UNIT_BYTES
        room = {"f_blocks": blocks, "f_bfree": blocks * 3 // 4, "f_bavail": blocks * 3 // 4}
        inodes = {"f_files": 1 << 16, "f_ffree": 1 << 15, "f_favail": 1 << 15}
        return {"f_bsize": _UNIT_BYTES, "f_frsize": _UNIT_BYTES, "f_namemax": 255} | room | inodes

    # Directories

    def opendir(self, path: str) -> int:
        self._meet("opendir", path)
        return self._keep(path, os.open(self._at(path), os.O_RDONLY | os.O_DIRECTORY))

    def readdir(self, path: str | None, fh: int) -> list[str]:
        self._meet("readdir", path, fh)
        return [".", "..", *os.listdir(self._at(path or self._opened[fh]))]

    def releasedir(self, path: str | None, fh: int) -> int:
        return self.release(path, fh)

    def fsyncdir(self, path: str | None, datasync: int, fh: int) -> int:
        return self._sync("fsyncdir", path, fh)

    # Files

    def open(self, path: str, flags: int) -> int:
        self._meet("open", path)
        fd = os.open(self._at(path), flags & ~os.O_DIRECT)
        if flags & os.O_TRUNC:
            self._syncs.truncate(fd, 0)
        return self._keep(path, fd)

    def create(self, path: str, mode: int, flags: int) -> int:
        self._meet("create", path)
        self._syncs.give_name(self._at(path))
        fd = os.open(self._at(path), flags & ~os.O_DIRECT | os.O_CREAT, mode)
        self._syncs.create(fd)
        return self._keep(path, fd)

    def read(self, path: str | None, size: int, offset: int, fh: int) -> bytes:
        if self._meet("read", path, fh):
            size = max(1, size // 2)
        return os.pread(fh, size, offset)

    def write(self, path: str | None, data: bytes, offset: int, fh: int) -> int:
        short = self._meet("write", path, fh)
        written = os.pwrite(fh, data[: max(1, len(data) // 2)] if short else data, offset)
        self._syncs.write(fh, offset, written)
        return written

    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        self._meet("truncate", path, -1 if fh is None else fh)
        file = self._at(path) if path else fh or 0
        os.truncate(file, length)
        self._syncs.truncate(file, length)
        return 0

    def fallocate(self, path: str | None, mode: int, offset: int, size: int, fh: int) -> int:
        self._meet("fallocate", path, fh)
        if mode:
            raise OSError(errno.EOPNOTSUPP, "only to take room")
        os.posix_fallocate(fh, offset, size)
        return 0

    def fsync(self, path: str | None, datasync: int, fh: int) -> int:
        return self._sync("fsync", path, fh)

    def flush(self, path: str | None, fh: int) -> int:
        self._meet("flush", path, fh)
        return 0

    def release(self, path: str | None, fh: int) -> int:
        self._opened.pop(fh, None)
        os.close(fh)
        return 0


def _obey(filesystem: FaultFs, mount_point: Path) -> None:
    for line in sys.stdin:
        fields = json.loads(line)
        if fields == "met":
            answer = filesystem.met()
        elif isinstance(fields, list):
            answer = filesystem.copy_after_cut(*map(Path, fields))
        else:
            answer = filesystem.arm(None if fields is None else Fault(**fields))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    _end(filesystem, mount_point)


def _outlive_nobody(filesystem: FaultFs, mount_point: Path) -> None:
    # An owner that was killed while one of its threads hangs here keeps its end of the pipe open
    # until that thread is let go: its end is seen by its first thread alone.
    owner = Path(f"/proc/{os.getppid()}/stat")
    with suppress(OSError):
        while owner.read_text().rpartition(")")[2].split()[0] not in "ZX":
            time.sleep(_LOOK_S)
    _end(filesystem, mount_point)


def _end(filesystem: FaultFs, mount_point: Path) -> NoReturn:
    filesystem.arm(None)
    with suppress(OSError):
        subprocess.run(["fusermount3", "-u", "-z", str(mount_point)], check=False)
    os._exit(0)


def main(backing: Path, mount_point: Path) -> None:
    """Serve `backing` at `mount_point` until stdin ends."""
    filesystem = FaultFs(backing)
    for watch in (_obey, _outlive_nobody):
        threading.Thread(target=watch, args=(filesystem, mount_point), daemon=True).start()
    options = {"max_read": _MOST_BYTES}
    if mfusepy.fuse_version_major == 2:  # libfuse 3 knows no such option, and takes it from `init`
        options["max_write"] = _MOST_BYTES
    mfusepy.FUSE(
        filesystem,
        str(mount_point),
        foreground=True,
        direct_io=True,
        hard_remove=True,
        entry_timeout=3600,
        negative_timeout=0,
        attr_timeout=0,
        fsname="sled-depot-faults",
        **options,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
