"""What the benchmark makes of its numbers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import plot, report
from tests.benchmarks.catalog import MEASUREMENTS, chosen
from tests.benchmarks.measure import (
    MIB_PER_S,
    Row,
    Sample,
    Side,
    Spread,
    Target,
    alone,
    alternate,
    at_most,
    versus,
)
from tests.benchmarks.processes import Memory

ROOT = Path(__file__).parents[2]


def runs(*seconds: float) -> list[Sample]:
    return [Sample(512, each, cpu_s=each / 2) for each in seconds]


def test_both_sides_take_turns_in_going_first() -> None:
    order: list[str] = []

    def run(name: str) -> Sample:
        order.append(name)
        return Sample(1, 1.0)

    ours, theirs = alternate(3, partial(run, "a"), partial(run, "b"))

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert len(ours) == len(theirs) == 3


def test_one_side_runs_alone_when_the_other_is_not_there() -> None:
    ours, theirs = alternate(3, lambda: Sample(1, 1.0), None)

    assert len(ours) == 3
    assert theirs == []


def test_a_ratio_is_of_each_pair_and_not_of_the_medians() -> None:
    row = versus("k", "work", (runs(1, 4, 2), runs(2, 4, 6)), "other", target=Target(1.5))

    assert row.ratio == Spread(median=2.0, least=1.0, most=3.0)
    assert row.here.spread == Spread(median=256.0, least=128.0, most=512.0)
    assert row.here.cpu == 2.0
    assert row.verdict == "met"


@pytest.mark.parametrize(
    ("ratio", "target", "verdict"),
    [
        (0.7, Target(0.7), "met"),
        (0.69, Target(0.7), "missed"),
        (151, at_most(150), "missed"),
        (150, at_most(150), "met"),
        (1, None, ""),
    ],
)
def test_the_median_decides_the_verdict(ratio: float, target: Target | None, verdict: str) -> None:
    assert alone("k", "w", [ratio], MIB_PER_S, target=target).verdict == verdict


def test_what_could_not_be_compared_is_neither_met_nor_missed() -> None:
    row = versus("k", "work", (runs(1), []), "nginx", target=Target(0.7), note="no nginx")

    assert row.verdict == "not measured"
    assert row.here.spread == Spread(512.0, 512.0, 512.0)
    assert "no nginx" in report.notes([row])[0]


def test_the_table_in_a_document_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    row = alone("k", "tee a | hash", [512, 256], MIB_PER_S)

    for _ in range(2):
        report.write_into(document, {"cores": 2}, [row])

    written = document.read_text()
    assert written.startswith(f"before\n{report.BEGIN}\n\ncores: 2\n")
    assert written.endswith(f"{report.END}\nafter\n")
    assert "| tee a \\| hash | 384 (256-512) MiB/s |" in written
    assert "old" not in written
    assert "](performance.svg)" in written
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "performance.json",
        "performance.md",
        "performance.svg",
    ]


def test_every_ratio_is_drawn_whatever_its_row_is_called() -> None:
    rows = [
        versus("a", "GET <1> & 2", (runs(1), runs(2)), "x", target=Target(0.7)),
        Row(key="b", work="b", unit=MIB_PER_S, here=Side(each=(1.0,)), ratios=(40.0,)),
        alone("c", "no ratio", [1], MIB_PER_S),
    ]

    drawn = ElementTree.fromstring(plot.svg(rows))

    bars = [each for each in drawn.iter() if each.tag.endswith("rect") and each.get("class")]
    assert [each.get("class") for each in bars] == ["met", "plain"]


def test_no_label_of_the_last_run_is_wider_than_its_place() -> None:
    rows = json.loads((ROOT / "docs" / "performance.json").read_text())["rows"]
    longest = max(len(row["work"]) for row in rows if row["ratios"])
    # A letter of 12 px sans-serif takes 6.3 px in the mean.
    assert 6.3 * longest + 8 <= plot.LEFT


def test_a_measurement_is_chosen_by_its_name_or_by_what_it_begins_with() -> None:
    assert chosen(["get-1"]) == ["get-1"]
    assert chosen(["copy", "get-8"]) == ["get-8", "copy-curl", "copy-tee"]
    assert chosen(list(MEASUREMENTS)) == list(MEASUREMENTS)
    with pytest.raises(ValueError, match="put-nobody"):
        chosen(["put-nobody", "copy"])


def test_memory_peaks_are_kept_apart_for_all_processes_and_the_main_one() -> None:
    assert Memory(10, 5).most(Memory(7, 6)) == Memory(10, 6)
