"""A few runs of every campaign, each in a process of its own that may fork and be rough."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.needs import Need, lack
from tests.torture.campaign import Campaign
from tests.torture.registry import CAMPAIGNS

ROOT: Final = Path(__file__).parents[2]


def _parameter(campaign: Campaign) -> object:
    marks = [pytest.mark.xdist_group("torture-alone")] if campaign.alone else []
    return pytest.param(campaign, id=campaign.name, marks=marks)


@pytest.mark.parametrize("campaign", [_parameter(c) for c in CAMPAIGNS if c.slice_runs])
def test_no_run_of_a_slice_breaks_a_rule(
    campaign: Campaign, record_property: Callable[[str, object], None]
) -> None:
    command = [sys.executable, "-m", "tests.torture", campaign.name, "--json", "--brief"]
    command += ["--runs", str(campaign.slice_runs), "--seconds", str(campaign.slice_s)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)
    if outcome["skipped"] is not None:
        lack(Need.MOUNTS, outcome["skipped"])
    assert outcome["runs"] >= 1
    record_property("said", f"seed {outcome['seed']}, {outcome['runs']} runs")
