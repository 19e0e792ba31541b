"""F4: whatever one sled answers, the others get everything."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from coordinator.replication.verdict import MAX_REASON_LENGTH, Kind, Verdict
from coordinator.values import SledState
from tests.coordinator.replication.absurd import AbsurdSled, Lie
from tests.coordinator.replication.sim_fleet import SimFleet
from tests.coordinator.replication.virtual import run

MIB = 1 << 20
OPERATIONS = [
    *("identity", "put_config", "list_artifacts", "pins", "put", "copy", "copies", "copy_state"),
]
FIELDS = [
    None,
    "generation",
    "list",
    "pins",
    "copy_id",
    "copies",
    "state",
    "bytes_done",
    "bytes_total",
    "started_at",
    "finished_at",
    "error",
    "sha256",
    "datasets",
    "relay",
    "offered",
    "sled_id",
]
ODD: list[Any] = [
    *(10**400, -(10**400), 2**63 - 1, 2**63, -1, 0, 1, 1.5, 1e308, True, False, None),
    *("", "\x00", "a\nb\x1b[31m", "..", "x" * 5000, "running", "succeeded", "failed", "superseded"),
    *("9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "1970-01-01T00:00:00Z"),
    *({}, [], {"0" * 64: 10**400}, {"0" * 64: 0}, {"p": {"artifacts": ["0" * 64]}}),
]
json_values = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
lies = st.builds(
    Lie,
    said=json_values,
    field=st.sampled_from(FIELDS),
    status=st.none() | st.sampled_from([400, 404, 409, 413, 429, 500, 502, 503, 507]),
)


async def _everybody_else_converges(told: Mapping[str, Lie]) -> None:
    async with SimFleet(sleds=4) as fleet:
        absurd = AbsurdSled("sled-0", fleet.network, told)
        fleet.network.sleds["sled-0"] = absurd
        coordinator = await fleet.coordinator()
        absurd.pinned = {"p": frozenset(fleet.artifacts(MIB))}
        await coordinator.upload("1", fleet.artifacts(8 * MIB, MIB))
        others = {sled.id for sled in fleet.sleds[1:]}
        await fleet.until(
            lambda: not others & {sled_id for sled_id, _ in fleet.missing()}, within_s=120
        )
        await fleet.until(lambda: fleet.state("sled-0") is not None, within_s=120)
        for seen in fleet.database.sightings.values():
            assert seen.error is None or seen.error.isprintable()


@settings(max_examples=30, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(told=st.dictionaries(st.sampled_from(OPERATIONS), lies, min_size=1, max_size=3))
def test_f4_whatever_one_sled_says_the_others_get_everything(told: Mapping[str, Lie]) -> None:
    run(_everybody_else_converges(told))


@pytest.mark.parametrize("field", ["bytes_total", "bytes_done"])
def test_f4_a_copy_of_more_bytes_than_a_float_can_say_ends_no_pass(field: str) -> None:
    run(_everybody_else_converges({"copy_state": Lie(10**400, field)}))


def test_f4_a_sled_whose_answer_nobody_can_deal_with_is_set_aside_with_the_reason() -> None:
    class Broken(AbsurdSled):
        async def copies(self) -> tuple[object, ...]:  # type: ignore[override]
            return (object(),)

    async def scenario() -> None:
        async with SimFleet(sleds=3) as fleet:
            fleet.network.sleds["sled-0"] = Broken("sled-0", fleet.network, {})
            coordinator = await fleet.coordinator()
            await coordinator.upload("1", fleet.artifacts(MIB))
            await fleet.until(lambda: fleet.state("sled-0") is SledState.REFUSED, within_s=60)
            said = fleet.database.sightings["sled-0"].error
            assert said is not None
            assert "AttributeError" in said
            await fleet.until(
                lambda: {sled_id for sled_id, _ in fleet.missing()} == {"sled-0"}, within_s=60
            )
            await asyncio.sleep(120)

    run(scenario())


def test_a_reason_is_one_bounded_line_that_a_database_takes() -> None:
    said = Verdict(Kind.REFUSED, "a\x00b\ud800\nc" + "x" * 5000).reason
    assert said.isprintable()
    assert len(said) == MAX_REASON_LENGTH
    assert said.startswith("a?b??c")
