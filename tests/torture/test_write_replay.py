"""Which lives are cut at every point, and what is judged there."""

from __future__ import annotations

from collections import Counter

from tests.torture.campaign import Plan
from tests.torture.write_log import Kind, Record
from tests.torture.write_replay import KINDS, RUNS, every_point, kind_cut_everywhere, seeds_of


def test_a_whole_campaign_cuts_some_lives_of_each_filesystem_at_every_point() -> None:
    kinds = Counter(map(kind_cut_everywhere, seeds_of(Plan("write-replay", 7, RUNS))))

    assert kinds.total() == RUNS
    assert {kind: kinds[kind] for kind in KINDS} == dict.fromkeys(KINDS, 3)


def test_processes_share_these_lives_like_all_others() -> None:
    shares = [seeds_of(Plan("write-replay", 7, RUNS, share=(turn, 3))) for turn in range(3)]

    assert sorted(s for share in shares for s in share) == sorted(
        seeds_of(Plan("write-replay", 7, RUNS))
    )


def test_what_is_less_than_a_whole_campaign_takes_seconds() -> None:
    seeds = list(seeds_of(Plan("write-replay", 7, RUNS - 1)))

    assert {kind_cut_everywhere(seed) for seed in seeds} == {None}


def test_a_life_that_is_cut_everywhere_is_replayed_by_its_own_seed() -> None:
    seeds = list(seeds_of(Plan("write-replay", 7, RUNS)))

    assert seeds[0] == 7
    assert [next(seeds_of(Plan("write-replay", seed, 1))) for seed in seeds] == seeds


def test_every_prefix_is_judged_and_at_every_point_what_may_be_left() -> None:
    records = [Record(Kind.WRITE), Record(Kind.FLUSH), Record(Kind.MARK)]

    assert every_point(records) == [
        *((0, True), (0, False)),
        *((1, True), (1, False)),
        (2, False),
        *((3, True), (3, False)),
    ]
