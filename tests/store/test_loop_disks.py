"""What tests leave behind when they are killed: none of the disks that they made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.needs import Need, lack

_WAIT_S: Final = 60
_BEGIN: Final = """
import sys
from pathlib import Path
{what}
    print("mounted", flush=True)
    input()
"""
_DISK: Final = """from tests.loop_mount import loop_disk
with loop_disk(Path(sys.argv[1], "disk"), size_mib=16):"""
_MOUNT: Final = """from tests.store.loop_mount import loop_mount
with loop_mount(Path(sys.argv[1])):"""


@pytest.mark.parametrize("what", [_DISK, _MOUNT], ids=["loop_disk", "loop_mount"])
def test_tests_that_are_killed_leave_no_mount_and_no_loop_device(tmp_path: Path, what: str) -> None:
    killed = subprocess.Popen(
        [sys.executable, "-c", _BEGIN.format(what=what), tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdin is not None
    assert killed.stdout is not None
    with killed.stdin, killed.stdout:
        if killed.stdout.readline() != "mounted\n":
            killed.wait(_WAIT_S)
            lack(Need.MOUNTS, "no loop mounts here")
        assert (tmp_path / "disk").is_mount()
        assert str(tmp_path) in devices()
        killed.kill()
        killed.stdout.read()  # until those that clear away have ended, too
    killed.wait(_WAIT_S)
    assert not os.path.ismount(tmp_path / "disk")
    assert str(tmp_path) not in devices()


def devices() -> str:
    command = ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
