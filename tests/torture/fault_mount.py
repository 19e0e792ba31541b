"""The owner's side of `tests.torture.fault_fs`: mounts it, arms its faults, unmounts it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tests.torture.fault_fs import Fault

MOUNTED_WITHIN_S: Final = 20.0
_ROOT: Final = Path(__file__).parents[2]


def unusable() -> str | None:
    """Why there can be no such mount here; None when there can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    try:
        import mfusepy  # type: ignore[import-untyped]  # noqa: F401  # it loads libfuse
    except (ImportError, OSError) as error:
        return f"libfuse cannot be loaded: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Met:
    """What a fault met while it was armed.

    Attributes:
        struck: the calls that went wrong, with their paths.
        calls: how many calls of each kind were counted.
    """

    struck: tuple[str, ...]
    calls: Mapping[str, int]


class FaultMount:
    """A mounted pass-through.

    Attributes:
        backing: what it shows; looking here never meets a fault.
        path: where it is mounted.
    """

    def __init__(self, backing: Path, path: Path, server: subprocess.Popen[str]) -> None:
        self.backing = backing
        self.path = path
        self._server = server
        self._saying = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """Let a call go wrong from now on; there is one fault at a time."""
        self._say(json.dumps(asdict(fault)))

    def lift(self) -> Met:
        """Let everything work again, also what hangs now."""
        return _met(self._say("null"))

    def met(self) -> Met:
        """What the fault has met so far."""
        return _met(self._say('"met"'))

    def copy_after_cut(self, source: Path, target: Path) -> bool:
        """Copy what would be left of `source` if the power went now, both beside the mount.

        False, and no copy: a cut would take nothing, since no sync of what is there has failed.
        """
        return bool(self._say(json.dumps([str(source), str(target)]))["lost"])

    def _say(self, line: str) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with self._saying:
            self._server.stdin.write(line + "\n")
            self._server.stdin.flush()
            answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer


def _met(answer: dict[str, Any]) -> Met:
    return Met(tuple(answer.get("struck", ())), answer.get("calls", {}))


@contextmanager
def fault_mount(root: Path) -> Iterator[FaultMount]:
    """Mount `root/backing` at `root/mount`, both made here, for the block."""
    backing, path = root / "backing", root / "mount"
    backing.mkdir()
    path.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.fault_fs", str(backing), str(path)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _await_mount(server, path)
        yield FaultMount(backing, path, server)
    finally:
        _end(server, path)


def _await_mount(server: subprocess.Popen[str], path: Path) -> None:
    latest_s = time.monotonic() + MOUNTED_WITHIN_S
    while not os.path.ismount(path):
        if server.poll() is not None or time.monotonic() > latest_s:
            raise RuntimeError(f"nothing was mounted at {path}")
        time.sleep(0.01)


def _end(server: subprocess.Popen[str], path: Path) -> None:
    # It unmounts itself when its input ends. Whatever still waits for it is let go by its death.
    server.communicate(timeout=None if server.poll() is None else 1)
    if os.path.ismount(path):
        subprocess.run(["fusermount3", "-u", "-z", str(path)], check=False)
