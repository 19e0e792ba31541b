"""How soon a fleet has a release, in times that the release needs over one link. See `timed`."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from coordinator.replication.plan import plan
from coordinator.replication.values import Inventory, Policy
from tests.coordinator.replication.timed import Network, Timeline, release, transfers

ONE = (1024,)
RELEASE = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1, 1, 1)
SLOW = "sled-3"


@pytest.mark.parametrize("sizes_mib", [ONE, RELEASE], ids=["one", "release"])
@pytest.mark.parametrize("sleds", [3, 16, 40])
def test_with_relays_all_sleds_have_it_in_about_the_time_of_one_transfer(
    sleds: int, sizes_mib: tuple[int, ...]
) -> None:
    assert transfers(release(sleds, sizes_mib), Policy(), Network()) < 1.25


@pytest.mark.parametrize("streams_in", [2, 4, 8])
def test_sleds_that_receive_few_artifacts_at_once_have_a_release_of_many_as_soon(
    streams_in: int,
) -> None:
    network = Network(streams_in=streams_in)
    assert transfers(release(16, (64,) * 20), Policy(), network) < 1.25


@pytest.mark.parametrize("sleds", [4, 16, 32])
def test_without_relays_the_time_grows_with_the_logarithm_of_the_fleet(sleds: int) -> None:
    found = transfers(release(sleds, ONE, relays=False), Policy(), Network())
    # The first three puts share one link, and then the sleds that have it double in each round.
    assert found == pytest.approx(3 + math.ceil(math.log2(sleds / 3)), abs=0.1)


def test_a_chain_is_sooner_than_a_tree_for_one_large_artifact_and_later_for_a_small_one() -> None:
    def with_fan_out(sizes_mib: tuple[int, ...], fan_out: int) -> float:
        policy = Policy(hop_bytes=0 if fan_out == 1 else 1 << 50, max_fan_out=fan_out)
        return transfers(release(40, sizes_mib), policy, Network())

    assert with_fan_out(ONE, 1) < 0.6 * with_fan_out(ONE, 2)
    assert with_fan_out((1,), 1) > 2 * with_fan_out((1,), 2)


def test_several_puts_of_the_same_artifact_share_the_coordinators_link() -> None:
    one, three = (
        transfers(release(16, ONE), Policy(puts_to_relays=puts), Network()) for puts in (1, 3)
    )
    assert three > 2.5 * one


def _others_done(fleet: Inventory, seed: int) -> float:
    """When the last sled but the slow one has everything, in times of one transfer."""
    network = Network(slow={SLOW: Network().rate_bytes_per_s / 10})
    timeline = Timeline(fleet, plan(fleet, Policy(), Random(seed)), network)
    timeline.run()
    whole_s = sum(fleet.sizes.values()) / network.rate_bytes_per_s
    return max(at_s for (_, sled), at_s in timeline.done_s.items() if sled != SLOW) / whole_s


@pytest.mark.parametrize("seed", range(2))
def test_f4_a_sled_that_is_known_to_be_slow_delays_no_other(seed: int) -> None:
    fleet = release(16, (128,) * 4)
    assert _others_done(fleet, seed) > 2
    known = tuple(
        replace(sled, pace_bytes_per_s=1e7 if sled.id == SLOW else 1e8) for sled in fleet.sleds
    )
    assert _others_done(replace(fleet, sleds=known), seed) < 1.25
