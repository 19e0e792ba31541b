"""The programs beside which the agent is measured, found on this machine or reported as missing."""

from __future__ import annotations

import os
import shutil
import subprocess


def find(program: str) -> str | None:
    """The program's path; Debian keeps servers where a user's PATH may not lead."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def path_of(program: str) -> str:
    """The path of a program that is known to be there."""
    path = find(program)
    assert path is not None, f"ask for {program} first"
    return path


def missing(*names: str) -> list[str]:
    """Those of some programs that are not there."""
    return [name for name in names if find(name) is None]


def not_found(names: list[str]) -> str:
    """What a row without them says; nothing when there are none."""
    return f"not found on this machine: {', '.join(names)}" if names else ""


def version_of(program: str, option: str = "--version") -> str:
    """The first line of what it says about itself; empty when it is not there."""
    if (path := find(program)) is None:
        return ""
    done = subprocess.run([path, option], capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).partition("\n")[0].strip()
