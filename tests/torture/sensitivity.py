"""Planted bugs: a campaign that has not been seen to fail proves nothing.

Each run plants one bug in a copy of the code and has the campaigns look for it; one that nobody
notices is a violation of this campaign. Which campaign noticed which bug goes into the report.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.torture.campaign import Campaign, Outcome, Plan, images_dir, strike_each
from tests.torture.plants import PLANTS, Plant

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("agent", "depot", "tests", "pyproject.toml")
SECONDS: Final = 180
"""For each campaign that looks for one bug. Most are found in the first few runs."""
RUNS: Final = 400


def _run(plan: Plan) -> Outcome:
    noticed: dict[str, str] = {}
    # A run's seed is the number of its bug: in a whole campaign each has its turn.
    first = 0 if plan.runs >= len(PLANTS) else plan.seed
    numbers = range(first + plan.share[0], first + plan.runs, plan.share[1])

    def strike(number: int) -> None:
        plant = PLANTS[number % len(PLANTS)]
        with checkout_copy() as copy:
            plant.apply(copy)
            noticed[plant.bug] = caught_by(plant, copy)
            sys.stderr.write(f"sensitivity: {noticed[plant.bug]} noticed: {plant.bug}\n")

    outcome = strike_each(plan, strike, Counter(), numbers)
    counts = Counter(f"by {campaign}" for campaign in noticed.values())
    return replace(outcome, counts=counts, noticed=noticed)


def caught_by(plant: Plant, copy: Path) -> str:
    """The campaign that notices the bug which was planted in a copy of the checkout.

    Raises:
        AssertionError: none does.
    """
    for campaign in plant.by:
        if _notices(campaign, copy):
            return campaign
    raise AssertionError(f"nobody noticed that {plant.bug}; asked: {', '.join(plant.by)}")


def _notices(campaign: str, copy: Path) -> bool:
    command = [sys.executable, "-m", "tests.torture", campaign, "--json"]
    command += ["--runs", str(RUNS), "--seconds", str(SECONDS), "--first"]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), f"{campaign} broke: {done.stderr[-2000:]}"
    (outcome,) = json.loads(done.stdout)
    assert outcome["skipped"] is None, f"{campaign} was skipped: {outcome['skipped']}"
    return bool(outcome["violations"])


@contextmanager
def checkout_copy() -> Iterator[Path]:
    """Copy what the campaigns need, for the block."""
    with tempfile.TemporaryDirectory(dir=images_dir()) as found:
        copy = Path(found)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, copy / name, ignore=ignore)
            else:
                shutil.copy(source, copy / name)
        yield copy


CAMPAIGN: Final = Campaign(
    "sensitivity",
    "bugs planted in the code, each of which a campaign has to notice",
    runs=len(PLANTS),
    slice_runs=0,
    run=_run,
    alone=True,
)
