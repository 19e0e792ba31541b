"""A pass over a fleet that has everything: what every minute costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import MEBIBYTES, SECONDS, Row, alone, at_most
from tests.benchmarks.rig import Rig

ROOT: Final = Path(__file__).parents[3]
TARGET_S: Final = 3.0
TARGET_MIB: Final = 300


def idle_pass(rig: Rig) -> list[Row]:
    """In a process of its own, whose memory is that of a coordinator and of the sleds' lists."""
    sleds, artifacts = rig.scale.sleds // 2, rig.scale.fleet_artifacts // 5
    command = [sys.executable, "-m", "tests.benchmarks.one_pass"]
    numbers = map(str, (sleds, artifacts, rig.scale.rounds))
    done = subprocess.run([*command, *numbers], cwd=ROOT, check=True, capture_output=True)
    found = json.loads(done.stdout)
    work = f"a pass over {sleds:,} simulated sleds, {artifacts:,} artifacts: nothing to do"
    return [
        alone("pass", work, found["times_s"], SECONDS, target=at_most(TARGET_S, SECONDS)),
        alone(
            "pass-memory",
            f"{work}, peak memory",
            (found["peak_mib"],),
            MEBIBYTES,
            target=at_most(TARGET_MIB, MEBIBYTES),
        ),
    ]
