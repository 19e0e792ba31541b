"""Planted bugs: a campaign that has not been seen to fail proves nothing.

Each run plants one bug in a copy of the code and has the campaigns look for it; one that nobody
notices is a violation of this campaign, and so is one that is noticed where it was not planted.
Which campaign noticed which bug goes into the report.
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

from tests.memory_dir import memory_dir
from tests.torture import syscalls
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.plants import PLANTS, Plant

ROOT: Final = Path(__file__).parents[2]
COPIED: Final = ("agent", "depot", "tests", "pyproject.toml")
LOOK: Final = ("--first", "--runs", "2000", "--seconds", "600")
"""How long each campaign looks for one bug. Most are found in the first few runs."""
NOBODY: Final = "nobody"


def _run(plan: Plan) -> Outcome:
    noticed: dict[str, str] = {}
    # A run's seed is the number of its bug: in a whole campaign each has its turn.
    first = 0 if plan.runs >= len(PLANTS) else plan.seed
    numbers = range(first + plan.share[0], first + plan.runs, plan.share[1])

    def strike(number: int) -> None:
        plant = PLANTS[number % len(PLANTS)]
        noticed[plant.bug] = NOBODY
        with checkout_copy() as copy:
            plant.apply(copy)
            noticed[plant.bug] = caught_by(plant, copy)
            sys.stderr.write(f"sensitivity: {noticed[plant.bug]} noticed: {plant.bug}\n")

    outcome = strike_each(plan, strike, Counter(), numbers)
    counts = Counter(f"by {by}" for by in noticed.values())
    return replace(outcome, counts=counts, noticed=noticed)


def caught_by(plant: Plant, copy: Path) -> str:
    """The campaign that notices the bug which was planted in a copy of the checkout.

    Raises:
        AssertionError: none does.
    """
    for campaign in plant.by:
        found = _violations(campaign, copy, *LOOK, *_first_case(plant, campaign))
        if found:
            seed = str(found[0]["seed"])
            without = _violations(campaign, ROOT, "--runs", "1", "--seed", seed)
            assert not without, f"without the bug that {plant.bug} as well: {without}"
            return campaign
    raise AssertionError(f"nobody noticed that {plant.bug}; asked: {', '.join(plant.by)}")


def _first_case(plant: Plant, campaign: str) -> tuple[str, ...]:
    """The seed of the case to begin with, where the campaign has those."""
    if plant.case is None or campaign != syscalls.CAMPAIGN.name:
        return ()
    return "--seed", str(syscalls.number_of(plant.case))


def _violations(campaign: str, checkout: Path, *arguments: str) -> list[dict[str, object]]:
    """What a campaign finds wrong with the code of a checkout."""
    command = [sys.executable, "-m", "tests.torture", campaign, "--json", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), f"{campaign} broke: {done.stderr[-2000:]}"
    (outcome,) = json.loads(done.stdout)
    assert outcome["skipped"] is None, f"{campaign} was skipped: {outcome['skipped']}"
    violations: list[dict[str, object]] = outcome["violations"]
    return violations


@contextmanager
def checkout_copy() -> Iterator[Path]:
    """Copy what the campaigns need, for the block."""
    with tempfile.TemporaryDirectory(dir=memory_dir()) as found:
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
