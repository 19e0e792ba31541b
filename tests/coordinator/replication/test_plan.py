"""Plans of small fleets, whole: what is where, and what is to be done. See `tables`."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from coordinator.replication.plan import plan
from coordinator.replication.values import Inventory, Policy
from depot.artifact import Generation
from tests.coordinator.replication.tables import (
    GENERATION,
    InOrder,
    artifact,
    inventory,
    lines,
    planned,
)


def test_nothing_is_to_be_done_when_every_sled_holds_everything() -> None:
    assert (
        planned("""
            os:64  app:1
        a   2      2
        b   2      2
    """)
        == []
    )


def test_a_large_release_goes_from_staging_through_chains_all_in_one_order() -> None:
    assert planned("""
            os:64  app:1
        a   .      .
        b   .      .
        c   .      .
        +   x      x
    """) == lines("""
        put os to a
        put app to a
        copy os to b from a when a begun
        copy os to c from b,a when b begun
        copy app to b from a when a begun
        copy app to c from b,a when b begun
    """)


def test_a_small_release_goes_through_trees_that_begin_at_different_sleds() -> None:
    assert planned("""
            app:1  fw:1
        a   .      .
        b   .      .
        c   .      .
        d   .      .
        e   .      .
        +   x      x
    """) == lines("""
        put fw to a
        put app to c
        copy fw to b from a when a begun
        copy fw to c from a when a begun
        copy fw to d from b,a when b begun
        copy fw to e from b,a when b begun
        copy app to d from c when c begun
        copy app to e from c when c begun
        copy app to a from d,c when d begun
        copy app to b from d,c when d begun
    """)


def test_without_relays_staging_fills_as_many_as_must_hold_it_and_each_serves_one_at_a_time() -> (
    None
):
    assert planned("""
            os:64
        a-  .
        b-  .
        c-  .
        d-  .
        e-  .
        f-  .
        g-  .
        +   x
    """) == lines("""
        put os to a
        put os to b
        put os to c
        copy os to d from a,b,c when a finished
        copy os to e from b,c,a when b finished
        copy os to f from c,a,b when c finished
        copy os to g from a,b,c when d finished
    """)


def test_what_some_hold_is_copied_from_each_of_them_and_not_put() -> None:
    assert planned("""
            os:64
        a   2
        b   2
        c   1
        d   .
        e   .
        f   .
        g   .
        +   x
    """) == lines("""
        copy os to d from a,b,c
        copy os to e from b,c,a
        copy os to f from c,a,b
        copy os to g from d,a,b,c when d begun
        c heals os
        droppable os
    """)


def test_staging_helps_while_too_few_sleds_hold_it() -> None:
    assert planned("""
            os:64
        a   2
        b   .
        c   .
        +   x
    """) == lines("""
        put os to b
        copy os to c from a,b
    """)


def test_what_is_arriving_is_not_planned_again_and_is_read_from_if_it_relays() -> None:
    assert planned("""
            os:64  app:1
        a   >      .
        b   .      .
        c-  .      >
    """) == lines("""
        copy os to b from a
        copy os to c from a when b finished
        awaited app os
    """)


def test_of_those_that_are_receiving_it_only_the_last_in_order_is_read_from_by_more() -> None:
    assert planned("""
            os:64
        a   >
        b   >
        c   .
        d   .
    """) == lines("""
        copy os to c from b
        copy os to d from c,b when c begun
        awaited os
    """)


def test_those_that_do_not_relay_are_served_after_those_that_do() -> None:
    assert planned("""
            os:64
        a-  .
        b   .
        c-  .
        d   .
        e-  .
        f-  .
        g   2
    """) == lines("""
        copy os to b from g
        copy os to d from b,g when b begun
        copy os to a from g when b finished
        copy os to c from b,g when d finished
        copy os to e from d,b,g when d finished
        copy os to f from g when a finished
    """)


def test_f4_a_slow_sled_passes_nothing_on_and_gets_its_bytes_after_the_others() -> None:
    assert planned("""
            os:64
        a~  .
        b   .
        c   .
        d   .
        +   x
    """) == lines("""
        put os to b
        copy os to c from b when b begun
        copy os to d from c,b when c begun
        copy os to a from b when c finished
    """)


def test_f4_what_a_slow_sled_has_is_read_from_others() -> None:
    assert planned("""
            os:64  app:1
        a~  2      2
        b   2      .
        c   .      2
        d   .      .
    """) == lines("""
        copy os to c from b
        copy os to d from c,b when c begun
        copy app to b from c
        copy app to d from b,c when b begun
    """)


def test_what_only_slow_sleds_have_is_read_from_them() -> None:
    assert planned("""
            os:64  app:1
        a~  2      >
        b   .      .
        c   .      .
    """) == lines("""
        copy os to b from a
        copy os to c from b,a when b begun
        copy app to b from a
        copy app to c from b,a when b begun
        awaited app
    """)


def test_f4_a_sled_that_is_set_aside_gives_and_gets_nothing() -> None:
    assert planned("""
            os:64
        a!  2
        b!  .
        c   .
        d   .
        +   x
    """) == lines("""
        put os to c
        copy os to d from c when c begun
    """)


def test_a_sled_with_one_good_copy_heals_from_it_and_one_with_none_is_sent_a_copy() -> None:
    assert planned("""
            os:64  app:1
        a   2      0
        b   1      2
    """) == lines("""
        copy app to a from b
        b heals os
    """)


def test_what_nobody_has_is_lost() -> None:
    assert planned("""
            os:64  app:1
        a   2      .
        b   2      .
    """) == lines("lost app")


def test_what_a_sled_may_have_that_cannot_be_asked_is_out_of_reach_and_not_lost() -> None:
    assert planned("""
            os:64  app:1
        a   2      .
        b!  .      .
    """) == lines("out_of_reach app")


def test_what_another_coordinator_has_staged_is_awaited() -> None:
    assert planned("""
            os:64
        a   .
        &   x
    """) == lines("awaited os")


def test_a_fleet_of_one_sled_needs_it_on_one() -> None:
    assert planned("""
            os:64
        a   2
        +   x
    """) == lines("droppable os")


def test_f2_a_sled_that_cannot_be_asked_does_not_lower_how_many_must_hold_what_is_dropped() -> None:
    assert (
        planned("""
            os:64
        a   2
        b   2
        c!  2
        d!  2
        +   x
    """)
        == []
    )


def test_f2_what_arrives_or_is_damaged_is_not_held() -> None:
    assert planned("""
            os:64
        a   2
        b   >
        c   0
        +   x
    """) == lines("put os to c")


def test_f2_a_fleet_without_sleds_drops_nothing() -> None:
    assert (
        planned("""
            os:64
        +   x
    """)
        == []
    )


def test_what_is_staged_and_not_wanted_is_named_apart_from_what_is_held() -> None:
    fleet = inventory("""
            os:64
        a   2
    """)
    stranger = artifact("of a release that was removed")
    found = plan(replace(fleet, staged_here=frozenset({stranger})), Policy(), InOrder())
    assert (found.unwanted, found.droppable) == (frozenset({stranger}), frozenset())


def test_coordinators_with_one_seed_plan_the_same_chains_whatever_each_has_staged() -> None:
    table = """
            os:64  app:64
        a   2      .
        b   .      .
        c   .      2
        d   .      .
        +   {}      {}
    """
    here, there = (
        plan(inventory(table.format(*cells)), Policy(min_sled_replication=1), Random(3))
        for cells in (("x", "."), (".", "x"))
    )
    assert here.spreads == there.spreads


def test_a_plan_says_for_which_generation_it_was_made() -> None:
    empty = Inventory(generation=GENERATION, sizes={}, sleds=())
    assert plan(empty, Policy(), Random(1)).generation == Generation(7)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_as_many_puts_as_the_policy_asks_for_begin_as_many_chains(number: int) -> None:
    found = planned(
        """
            os:64
        a   .
        b   .
        c   .
        d   .
        +   x
    """,
        puts_to_relays=number,
    )
    assert sum(line.startswith("put") for line in found) == number
    assert len(found) == 4
