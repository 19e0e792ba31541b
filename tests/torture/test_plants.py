from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.torture.plants import PLANTS, Plant
from tests.torture.registry import CAMPAIGNS
from tests.torture.sensitivity import ROOT, caught_by, checkout_copy
from tests.torture.syscalls import CASES, number_of


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.bug)
def test_a_planted_bug_has_its_place_in_the_code_and_campaigns_that_look_for_it(
    plant: Plant, tmp_path: Path
) -> None:
    target = tmp_path / plant.file
    target.parent.mkdir(parents=True)
    shutil.copy(ROOT / plant.file, target)

    plant.apply(tmp_path)

    compile(target.read_text(), plant.file, "exec")
    assert set(plant.by) <= {campaign.name for campaign in CAMPAIGNS}
    assert plant.case is None or str(CASES[number_of(plant.case)]) == plant.case


@pytest.mark.parametrize(
    "bug",
    [
        "the oldest ledger wins",
        "a block that does not match leaves",
        "a copy is called good by its size",
    ],
)
def test_a_planted_bug_is_noticed(bug: str) -> None:
    plant = next(plant for plant in PLANTS if plant.bug == bug)

    with checkout_copy() as copy:
        plant.apply(copy)

        assert caught_by(plant, copy) in plant.by


def test_there_are_as_many_bugs_as_it_takes() -> None:
    assert len({plant.bug for plant in PLANTS}) >= 30
