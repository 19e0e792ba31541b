"""What a campaign makes of its runs."""

from __future__ import annotations

import gc
import json
import mmap
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from depot.freed_memory import give_back
from tests.torture import campaign, report
from tests.torture.__main__ import main
from tests.torture.campaign import Outcome, Plan, Skip, Violation, growth, merged, strike_each
from tests.torture.registry import CAMPAIGNS, by_name

ROOT = Path(__file__).parents[2]


def test_a_run_is_replayed_by_its_own_seed() -> None:
    seeds = list(Plan("any", 7, 5).seeds())

    assert seeds[0] == 7
    assert len(set(seeds)) == 5
    assert [next(Plan("any", seed, 1).seeds()) for seed in seeds] == seeds


def test_processes_share_the_runs_of_a_campaign() -> None:
    shares = [list(Plan("any", 7, 5, share=(turn, 2)).seeds()) for turn in range(2)]

    assert sorted(shares[0] + shares[1]) == sorted(Plan("any", 7, 5).seeds())


@pytest.mark.parametrize("name", [c.name for c in CAMPAIGNS if c.alone and c.slice_runs])
def test_what_cannot_be_mounted_here_is_skipped_with_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.access", lambda *_: False)

    with pytest.raises(Skip, match=r"takes root|/dev/fuse"):
        by_name(name).run(Plan(name, 7, 1))


def test_no_run_begins_when_the_time_is_over() -> None:
    plan = Plan("any", 7, 5, ends_at_s=0.0)

    assert strike_each(plan, lambda _: None, Counter()).runs == 0


def test_no_run_begins_after_enough_violations() -> None:
    def strike(_seed: int) -> None:
        raise AssertionError("B1 broken")

    assert strike_each(Plan("any", 7, 5, enough=2), strike, Counter()).runs == 2


def test_whatever_a_run_raises_is_a_violation_with_the_command_that_replays_it() -> None:
    plan = Plan("any", 7, 3)
    second = list(plan.seeds())[1]

    def strike(seed: int) -> None:
        assert seed != second, "B1 broken"

    outcome = strike_each(plan, strike, Counter())

    assert outcome.runs == 3
    (violation,) = outcome.violations
    assert str(violation).startswith("B1 broken")
    assert f"python -m tests.torture any --seed {second} --runs 1" in str(violation)


def test_a_descriptor_that_a_run_leaves_open_is_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = []

    def strike(_seed: int) -> None:
        left.append(Path("/dev/null").open())  # noqa: SIM115

    monkeypatch.setattr(campaign, "SETTLED_WITHIN_S", 0.1)
    outcome = strike_each(Plan("any", 7, 1), strike, Counter())

    assert len(outcome.violations) == 1
    left[0].close()


def test_a_thread_that_ends_later_than_its_run_is_no_violation() -> None:
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def strike(_seed: int) -> None:
        if not threads:
            threads.append(threading.Thread(target=ended.wait))
            threads[0].start()
            threading.Timer(0.1, ended.set).start()

    outcome = strike_each(Plan("any", 7, 3), strike, Counter())

    assert not outcome.violations


def test_memory_that_grows_with_the_runs_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "MEMORY_SLACK", 8 << 20)
    kept: list[mmap.mmap] = []
    runs = campaign.WARM_RUNS + 20
    # What other tests have left free would be given back in between.
    gc.collect()
    give_back()

    def strike(_seed: int) -> None:
        # Pages of its own: a heap may have room from before.
        kept.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        kept[-1].write(b"x" * (1 << 20))

    outcome = strike_each(Plan("any", 7, runs), strike, Counter())

    assert outcome.violations
    assert "memory" in outcome.violations[0].what


class _Closed:
    """Something that was closed, and only waits for the garbage collector."""

    def __init__(self) -> None:
        self.itself = self
        self.pages = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.pages.write(b"x" * (1 << 20))


def test_memory_that_only_waits_for_the_garbage_collector_is_no_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "MEMORY_SLACK", 8 << 20)

    def strike(_seed: int) -> None:
        _Closed()

    outcome = strike_each(Plan("any", 7, campaign.WARM_RUNS + 40), strike, Counter())

    assert not outcome.violations


def test_what_is_said_to_be_held_is_no_garbage() -> None:
    gc.disable()

    def strike(_seed: int) -> None:
        _Closed()

    try:
        outcome = strike_each(Plan("any", 7, campaign.WARM_RUNS + 10), strike, Counter())
    finally:
        gc.enable()

    assert outcome.held is not None
    assert abs(growth(outcome.held)) < 4 << 20


def test_shares_are_added_up() -> None:
    shares = [Outcome("any", 7, runs, seconds=runs, counts=Counter(cuts=runs)) for runs in (2, 3)]

    total = merged(shares)

    assert (total.runs, total.seconds, total.counts) == (5, 3, Counter(cuts=5))


def test_outcomes_are_told_as_json() -> None:
    outcome = Outcome("any", 7, 2, (Violation("any", 9, "B1"),), counts=Counter(cuts=3))

    (told,) = json.loads(report.as_json([outcome]))

    assert told["violations"] == [{"campaign": "any", "seed": 9, "what": "B1"}]
    assert told["counts"] == {"cuts": 3}


def test_the_table_in_the_document_keeps_the_rows_of_what_was_not_run(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    bugs = f"{report.BUGS_BEGIN}\n{report.BUGS_END}"
    document.write_text(f"before\n{report.BEGIN}\n{report.END}\nbetween\n{bugs}\nafter\n")
    order = ["one", "two"]

    report.write_into(document, [Outcome("two", 1, runs=20)], order)
    report.write_into(document, [Outcome("one", 2, runs=10), Outcome("two", 3, runs=21)], order)
    report.write_into(document, [Outcome("one", 4, skipped="no loop devices")], order)

    table = document.read_text().split("between")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if "|" in line][2:]
    assert rows == [[" one ", " 10 "], [" two ", " 21 "]]
    assert document.read_text().startswith("before\n")
    assert document.read_text().endswith("after\n")


def test_the_document_says_which_campaign_noticed_which_planted_bug(tmp_path: Path) -> None:
    document = tmp_path / "reliability.md"
    marks = (report.BEGIN, report.END, report.BUGS_BEGIN, report.BUGS_END)
    document.write_text("\n".join(marks))

    report.write_into(document, [Outcome("any", 1, noticed={"no sync": "power-cut"})], ["any"])
    report.write_into(document, [Outcome("any", 1, noticed={"no fence": "model"})], ["any"])

    assert "| no sync | power-cut |\n| no fence | model |" in document.read_text()


@pytest.mark.parametrize("count", ["0", "-1", "many", ""])
@pytest.mark.parametrize("option", ["--runs", "--jobs"])
def test_a_campaign_of_no_runs_is_refused(
    option: str, count: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"{option}={count}", "kill"])
    assert ended.value.code == 2
    assert "expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["ARGS", "TORTURE_ARGS"])
def test_make_passes_arguments_on_and_leaves_the_documents_alone(variable: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "torture", f"{variable}=--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    command = done.stdout.splitlines()[-1]
    assert command.endswith("-m tests.torture --help")
