"""What the benchmark makes of its numbers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.benchmarks import report
from tests.benchmarks.measure import MIB, Row, Sample, Spread, Target, alone, alternate, versus


def runs(*seconds: float) -> list[Sample]:
    return [Sample(512 * MIB, each, cpu_s=each / 2) for each in seconds]


def test_contenders_take_turns_in_going_first() -> None:
    order: list[str] = []

    def run(name: str) -> Sample:
        order.append(name)
        return Sample(MIB, 1.0)

    measured = alternate(3, {name: partial(run, name) for name in "ab"})

    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(samples) for name, samples in measured.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_of_each_pair_and_not_of_the_medians() -> None:
    row = versus("k", "work", runs(1, 4, 2), "other", runs(2, 4, 6), target=Target(1.5))

    assert row.ratio == Spread(median=2.0, least=1.0, most=3.0)
    assert row.value == Spread(median=256.0, least=128.0, most=512.0)
    assert row.cpu_s_per_gib == 2.0
    assert row.verdict == "met"


@pytest.mark.parametrize(
    ("ratio", "target", "verdict"),
    [
        (0.7, Target(0.7), "met"),
        (0.69, Target(0.7), "missed"),
        (150, Target(150, at_least=False), "missed"),
        (149, Target(150, at_least=False), "met"),
        (1, None, ""),
    ],
)
def test_the_median_decides_the_verdict(ratio: float, target: Target | None, verdict: str) -> None:
    assert Row(key="k", work="w", value=Spread.of([ratio]), target=target).verdict == verdict


def test_what_could_not_be_compared_is_neither_met_nor_missed() -> None:
    row = versus("k", "work", runs(1), "nginx", [], target=Target(0.7), note="nginx was not found")

    assert row.verdict == "not measured"
    assert row.value == Spread(512.0, 512.0, 512.0)
    assert "nginx was not found" in report.notes([row])[0]


def test_the_table_in_a_document_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")

    for _ in range(2):
        report.write_into(document, {"cores": 2}, [alone("k", "hash", runs(1, 2))])

    written = document.read_text()
    assert written.startswith(f"before\n{report.BEGIN}\n\ncores: 2\n")
    assert written.endswith(f"{report.END}\nafter\n")
    assert "| hash | 384 (256-512) MiB/s |" in written
    assert "old" not in written
