"""Programs on a terminal, and their environment, for tests of what people see."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TIMEOUT_S: Final = 60.0


def environment(**more: str) -> dict[str, str]:
    # Of a developer's shell, what would change the output; unbuffered, a cut write goes unnoticed.
    ours = ("DEPOT_", "NO_COLOR", "FORCE_COLOR", "PYTHONI", "PYTHONU", "PYTHONW")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "TERM": "xterm", **more}


@contextmanager
def terminal(
    program: str, *arguments: object, columns: int = 80, **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a program with stdout and stderr on a terminal; yields it and the screen's end."""
    screen, side = pty.openpty()
    child = subprocess.Popen(
        [program, *map(str, arguments)],
        env=environment(COLUMNS=str(columns), LINES="40", **environ),
        stdin=side,
        stdout=side,
        stderr=side,
        start_new_session=True,
    )
    os.close(side)
    try:
        yield child, screen
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()
        os.close(screen)


def read_until(screen: int, wanted: bytes | None) -> bytes:
    """What the terminal shows up to `wanted`, or up to the end of the command."""
    shown, deadline = b"", time.monotonic() + TIMEOUT_S
    while wanted is None or wanted not in shown:
        assert select.select([screen], [], [], deadline - time.monotonic())[0], shown
        try:
            block = os.read(screen, 1 << 16)
        except OSError:  # Linux says EIO when the last user of the other side is gone.
            break
        if not block:
            break
        shown += block
    return shown
