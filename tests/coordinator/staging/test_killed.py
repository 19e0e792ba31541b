"""SIGKILL in the middle of holds and drops: what was held before is here afterwards (F5)."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests import ondisk
from tests.coordinator.staging.bench import Bench
from tests.store.builders import off_loop

LIVES: Final = int(os.environ.get("STAGING_KILLS", "4"))
SEED: Final = int(os.environ.get("STAGING_SEED", secrets.randbelow(1 << 32)))


async def test_f5_what_was_held_survives_sigkill_at_any_point(bench: Bench) -> None:
    rng = random.Random(SEED)
    held, dropping = set[str](), set[str]()
    for life in range(LIVES):
        lines = await off_loop(_live, bench.path, f"{SEED}-{life}", rng.randint(1, 40))
        for what, artifact in map(str.split, lines):
            (held if what == "held" else dropping).add(artifact)
        async with bench.depot() as depot:
            here = {str(artifact) for artifact in depot.held()}
            missing = held - dropping - here
            assert not missing, f"STAGING_SEED={SEED}, life {life}"
            assert await off_loop(ondisk.wrong_bytes, bench.dataset) == []
            assert await off_loop(ondisk.staged_files, bench.dataset) == []
            assert not await off_loop(lambda: list(depot.incoming.iterdir()))
            await depot.drop([], since=depot.moment())
            assert set(await bench.files()) == here  # nothing is left that nobody knows of (Q3)


def _live(path: Path, seed: str, lines: int) -> list[str]:
    """Have a process stage until it has said so many lines, and kill it; all that it said."""
    command = [sys.executable, "-m", "tests.coordinator.staging.holder", str(path), seed]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
    assert all(said[:lines]), f"the holder ended by itself: STAGING_SEED={SEED}, {seed}"
    return [line for line in said if line.endswith("\n") and len(line.split()[1]) == 64]
