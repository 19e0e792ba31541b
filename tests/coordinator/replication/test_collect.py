"""Asking all sleds: what is told, what is waited for, and what a pass may no longer say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from agent.wire.identity import DatasetStateBody
from coordinator.errors import DatabaseUnavailable
from coordinator.replication.collect import TIMEOUT_S, Collector, Patience
from coordinator.replication.ports import AsOf, FleetSnapshot
from coordinator.replication.report import SledReport
from coordinator.replication.request_log import RequestLog
from coordinator.replication.requests import MAX_CONCURRENT_REQUESTS, Requests
from coordinator.replication.verdict import Kind
from depot.artifact import ArtifactHash, Generation
from tests.coordinator.replication.sim_fleet import artifact
from tests.coordinator.replication.sim_sleds import Network, SimSled
from tests.coordinator.replication.virtual import run

X, Y = artifact(0), artifact(1)


class Scene:
    """A collector, sleds, and the generation that the database would say."""

    def __init__(self, sleds: int = 3) -> None:
        self.network = Network(sizes={X: 1, Y: 1})
        self.sleds = self.network.add(*(f"sled-{number}" for number in range(sleds)))
        self.generation = Generation(1)
        self.late = 0
        self.log = RequestLog()
        requests = Requests(self.agent_of, self.log)
        self.read_now = self.read
        self.collector = Collector(
            requests, lambda: self.read_now(), on_late=self.on_late, patience=Patience()
        )

    def agent_of(self, sled: object) -> SimSled:
        return next(each for each in self.sleds if each.row() == sled)

    async def read(self) -> Generation:
        return self.generation

    def on_late(self) -> None:
        self.late += 1

    def snapshot(self, *wanted: ArtifactHash, **kept: frozenset[ArtifactHash]) -> FleetSnapshot:
        return FleetSnapshot(
            generation=self.generation,
            sizes=dict.fromkeys(wanted, 1),
            sleds=tuple(sled.row() for sled in self.sleds),
            kept={name.replace("_", "-"): pinned for name, pinned in kept.items()},
        )

    async def collect(self, snapshot: FleetSnapshot) -> Mapping[str, SledReport]:
        return await self.collector.collect(snapshot, AsOf(asyncio.get_running_loop().time(), 0))


def kinds(reports: Mapping[str, SledReport]) -> list[Kind | None]:
    return [None if each.verdict is None else each.verdict.kind for each in reports.values()]


def test_each_sled_is_told_what_the_database_says_and_tells_what_it_has() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.sleds[1].held[X] = 1
        async with scene.collector:
            reports = await scene.collect(scene.snapshot(X, sled_2=frozenset([Y])))
        assert kinds(reports) == [None, None, None]
        assert [dict(each.held) for each in reports.values()] == [{}, {X: 1}, {}]
        assert [sled.config for sled in scene.sleds] == [{X}, {X}, {X, Y}]
        assert scene.log.run == {"put_config_ok": 3, "list_ok": 3}

    run(scenario())


def test_f4_a_slow_sled_is_not_waited_for_and_what_it_says_later_counts_in_the_next_pass() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.sleds[0].faults.latency_s = 7.0
        scene.sleds[0].held[X] = 2
        loop = asyncio.get_running_loop()
        async with scene.collector:
            began_s = loop.time()
            reports = await scene.collect(scene.snapshot(X))
            assert loop.time() - began_s < 4.0
            assert kinds(reports) == [Kind.UNREACHABLE, None, None]
            await asyncio.sleep(20)
            assert scene.late == 1
            began_s = loop.time()
            again = await scene.collect(scene.snapshot(X))
            assert kinds(again) == [None, None, None]
            assert again["sled-0"].held == {X: 2}
            assert again["sled-0"].as_of < again["sled-1"].as_of
            assert scene.sleds[0].asked.count("put_config") == 1

    run(scenario())


def test_what_a_slow_sled_says_about_an_older_generation_counts_no_more() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.sleds[0].faults.latency_s = 7.0
        async with scene.collector:
            await scene.collect(scene.snapshot(X))
            await asyncio.sleep(20)
            scene.generation = Generation(2)
            reports = await scene.collect(scene.snapshot(X, Y))
            assert kinds(reports) == [Kind.UNREACHABLE, None, None]

    run(scenario())


def test_f4_sleds_that_did_not_answer_the_last_time_are_hardly_waited_for() -> None:
    async def scenario() -> None:
        scene = Scene(sleds=40)
        for sled in scene.sleds[:30]:
            sled.faults.down = True
        loop = asyncio.get_running_loop()
        async with scene.collector:
            await scene.collect(scene.snapshot(X))
            await asyncio.sleep(200)
            began_s = loop.time()
            reports = await scene.collect(scene.snapshot(X))
            assert loop.time() - began_s < 1.0
        assert kinds(reports).count(None) == 10

    run(scenario())


def test_f2_a_pass_that_was_stalled_tells_a_sled_nothing_that_is_out_of_date() -> None:
    """Its ledger was reset meanwhile: nothing else would keep it from believing an old config."""

    async def scenario() -> None:
        scene = Scene(sleds=1)
        scene.sleds[0].held = {X: 2, Y: 2}
        old = scene.snapshot(X)
        as_of = AsOf(asyncio.get_running_loop().time(), 0)
        await asyncio.sleep(60)
        scene.generation = Generation(2)
        async with scene.collector:
            reports = await scene.collector.collect(old, as_of)
        assert kinds(reports) == [Kind.LOCAL]
        assert scene.sleds[0].generation is None
        assert scene.sleds[0].held == {X: 2, Y: 2}

    run(scenario())


def test_f2_what_waited_for_others_to_be_asked_is_looked_at_again_before_it_is_said() -> None:
    async def scenario() -> None:
        scene = Scene(sleds=MAX_CONCURRENT_REQUESTS + 1)
        for sled in scene.sleds[:-1]:
            sled.faults.latency_s = 14.0
        old = scene.snapshot(X)
        async with scene.collector:
            collecting = asyncio.ensure_future(scene.collect(old))
            await asyncio.sleep(1)
            scene.generation = Generation(2)
            await collecting
            await asyncio.sleep(60)
        assert scene.sleds[-1].generation is None
        assert "put_config" not in scene.sleds[-1].asked

    run(scenario())


def test_f4_no_sled_is_blamed_for_a_database_that_takes_its_time() -> None:
    async def scenario() -> None:
        scene = Scene(sleds=1)
        old, as_of = scene.snapshot(X), AsOf(asyncio.get_running_loop().time(), 0)
        await asyncio.sleep(60)

        async def slow() -> Generation:
            await asyncio.sleep(TIMEOUT_S + 5)
            return scene.generation

        scene.collector = Collector(
            Requests(scene.agent_of, scene.log),
            slow,
            on_late=scene.on_late,
            patience=Patience(others_s=60.0),
        )
        async with scene.collector:
            reports = await scene.collector.collect(old, as_of)
        assert kinds(reports) == [None]

    run(scenario())


def test_the_pins_of_a_sled_are_read_when_it_refuses_and_while_something_is_kept_for_it() -> None:
    async def scenario() -> None:
        scene = Scene(sleds=2)
        async with scene.collector:
            await scene.collect(scene.snapshot(X))
            scene.sleds[0].pinned = {"boot": frozenset([X])}
            scene.generation = Generation(2)
            reports = await scene.collect(scene.snapshot(Y))
            assert kinds(reports) == [Kind.PINNED, None]
            assert [each.pinned for each in reports.values()] == [{X}, None]
            scene.generation = Generation(3)
            reports = await scene.collect(scene.snapshot(Y, sled_0=frozenset([X])))
            assert kinds(reports) == [None, None]
            assert [each.pinned for each in reports.values()] == [{X}, None]

    run(scenario())


def test_a_database_that_was_away_once_fails_one_pass_and_not_one_for_each_sled() -> None:
    async def scenario() -> None:
        scene = Scene(sleds=3)
        old, as_of = scene.snapshot(X), AsOf(asyncio.get_running_loop().time(), 0)
        await asyncio.sleep(60)

        async def away() -> Generation:
            raise DatabaseUnavailable("it is away")

        scene.read_now = away
        async with scene.collector:
            with pytest.raises(DatabaseUnavailable):
                await scene.collector.collect(old, as_of)
            scene.read_now = scene.read
            reports = await scene.collect(scene.snapshot(X))
        assert kinds(reports) == [None, None, None]

    run(scenario())


def test_a_sled_with_too_few_copies_says_anew_which_of_its_datasets_is_unwell() -> None:
    async def scenario() -> None:
        scene = Scene()
        sled = scene.sleds[0]
        well = DatasetStateBody(path="/a", state="healthy")
        sled.held[X], sled.datasets = 2, (well, DatasetStateBody(path="/b", state="healthy"))
        async with scene.collector:
            before = await scene.collect(scene.snapshot(X))
            lost = DatasetStateBody(path="/b\n", state="missing", last_error="no such directory")
            sled.held[X], sled.datasets = 1, (well, lost)
            after = await scene.collect(scene.snapshot(X))
        assert (before["sled-0"].datasets, before["sled-0"].unwell) == (2, ())
        assert after["sled-0"].unwell == ("dataset /b? is missing (no such directory)",)
        assert sled.asked.count("identity") == 2

    run(scenario())
