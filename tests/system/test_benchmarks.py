"""The benchmark runs and measures everything it promises. How fast anything is, is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import pytest

from tests.benchmarks.catalog import MEASUREMENTS, chosen

ROOT: Final = Path(__file__).parents[2]
# A few at a time, so that those who test in parallel can. What is left out differs from what is
# not in a number only.
SLICES: Final = (
    ["get"],
    ["small-get-16", "small-get-64-cached", "small-put"],
    ["put", "copy"],
    ["fanout-8"],
    ["crowd", "memory"],
    ["start", "plan", "pass", "journal-append", "limit"],
    ["snapshot"],
)
LEFT_OUT: Final = {"small-get-64", "small-get-16-cached", "fanout-32"}


@pytest.mark.parametrize("names", SLICES, ids=lambda names: names[0])
def test_a_small_slice_yields_every_row_or_says_why_not(names: list[str], tmp_path: Path) -> None:
    result, picture = tmp_path / "result.json", tmp_path / "result.svg"
    files = ("--json", str(result), "--svg", str(picture), "--dir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "--tiny", "--only", ",".join(names), *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["key"]: row for row in json.loads(result.read_text())["rows"]}
    for name in chosen(names):
        assert any(key.startswith(name) for key in rows), f"{name} gave no row"
    for row in rows.values():
        assert row["work"] in done.stdout
        assert row["note"] or row["here"]["each"]
        assert row["note"] or row["ratios"] or not row["there"]["name"]
    ElementTree.fromstring(picture.read_text())
    assert sorted(tmp_path.iterdir()) == [result, picture], "something was left behind"


def test_every_measurement_is_in_a_slice_or_left_out_on_purpose() -> None:
    covered = {name for names in SLICES for name in chosen(names)}

    assert covered | LEFT_OUT == set(MEASUREMENTS)
    assert not covered & LEFT_OUT
