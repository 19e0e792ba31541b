"""F2: what staging is let go of, and when it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, MutableMapping
from typing import Any

from coordinator.replication.letting_go import FRESH_S, UNWANTED_S, LettingGo
from coordinator.replication.ports import AsOf
from coordinator.replication.values import Plan
from depot.artifact import ArtifactHash, Generation
from tests.coordinator.replication.sim_database import SimDatabase, SimRecords
from tests.coordinator.replication.sim_fleet import SimStaging, artifact
from tests.coordinator.replication.sim_sleds import Network
from tests.coordinator.replication.virtual import run

X, Y = artifact(0), artifact(1)


class Scene:
    """One staging with X and Y, which the database knows."""

    def __init__(self) -> None:
        network = Network()
        self.listed_s = asyncio.get_running_loop().time()
        self.database = SimDatabase(network, generation=5)
        self.staging = SimStaging("here", network)
        self.staging.content = {X, Y}
        self.database.staged["here"] = frozenset([X, Y])
        self.records = SimRecords(self.database, "here")
        self.letting_go = LettingGo(self.staging, self.records)

    async def let_go(
        self,
        *,
        droppable: Collection[ArtifactHash] = (),
        unwanted: Collection[ArtifactHash] = (),
        since: int = 0,
        in_use: Collection[ArtifactHash] = (),
    ) -> list[ArtifactHash]:
        plan = Plan(
            generation=Generation(5),
            droppable=frozenset(droppable),
            unwanted=frozenset(unwanted),
        )
        return await self.letting_go.let_go(plan, AsOf(self.listed_s, since), in_use)


def test_what_enough_sleds_hold_leaves_staging_and_the_database() -> None:
    async def scenario() -> None:
        scene = Scene()
        assert await scene.let_go(droppable=[X]) == [X]
        assert scene.staging.held() == scene.database.staged["here"] == {Y}

    run(scenario())


def test_what_is_let_go_of_is_logged(logged: list[MutableMapping[str, Any]]) -> None:
    async def scenario() -> None:
        assert await Scene().let_go(droppable=[X]) == [X]

    run(scenario())
    [said] = [entry for entry in logged if entry["event"] == "let go of a staged artifact"]
    assert (said["log_level"], said["sha256"], said["generation"]) == ("info", str(X), 5)


def test_f2_nothing_is_dropped_when_the_database_has_moved_on() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.database.generation = 6
        assert await scene.let_go(droppable=[X]) == []
        assert scene.staging.held() == scene.database.staged["here"] == {X, Y}

    run(scenario())


def test_f2_a_list_that_is_old_by_now_proves_nothing() -> None:
    async def scenario() -> None:
        scene = Scene()
        await asyncio.sleep(FRESH_S + 1)  # a sled may have got an empty disk meanwhile
        assert await scene.let_go(droppable=[X]) == []
        assert scene.staging.held() == scene.database.staged["here"] == {X, Y}

    run(scenario())


def test_f2_a_coordinator_that_stood_still_before_it_deletes_does_not() -> None:
    async def scenario() -> None:
        scene = Scene()
        strike = scene.records.strike_staged

        async def slow(artifacts: Collection[ArtifactHash], at_generation: Generation) -> bool:
            struck = await strike(artifacts, at_generation)
            await asyncio.sleep(FRESH_S + 1)
            return struck

        scene.records.strike_staged = slow  # type: ignore[method-assign]
        assert await scene.let_go(droppable=[X]) == []
        assert scene.staging.held() == scene.database.staged["here"] == {X, Y}

    run(scenario())


def test_f2_what_was_claimed_since_the_sleds_were_asked_stays_in_both() -> None:
    async def scenario() -> None:
        scene = Scene()
        since = scene.staging.moment()
        async with scene.staging.claim([X]):
            pass
        assert await scene.let_go(droppable=[X, Y], since=since) == [Y]
        assert scene.staging.held() == scene.database.staged["here"] == {X}

    run(scenario())


def test_f2_what_an_upload_claims_stays_although_no_release_has_it_yet() -> None:
    async def scenario() -> None:
        scene = Scene()
        async with scene.staging.claim([X]):
            await scene.let_go(unwanted=[X])
            await asyncio.sleep(UNWANTED_S + 1)
            assert await scene.let_go(unwanted=[X], since=scene.staging.moment()) == []
        assert X in scene.staging.held()

    run(scenario())


def test_what_no_release_wants_is_kept_for_a_while_and_then_dropped() -> None:
    async def scenario() -> None:
        scene = Scene()
        assert await scene.let_go(unwanted=[X]) == []
        await asyncio.sleep(UNWANTED_S / 2)
        assert await scene.let_go() == []  # it was wanted again for a moment
        assert await scene.let_go(unwanted=[X]) == []
        await asyncio.sleep(UNWANTED_S / 2)
        assert await scene.let_go(unwanted=[X]) == []
        await asyncio.sleep(UNWANTED_S / 2)
        assert await scene.let_go(unwanted=[X]) == [X]

    run(scenario())


def test_nothing_is_taken_from_under_a_put() -> None:
    async def scenario() -> None:
        scene = Scene()
        assert await scene.let_go(droppable=[X, Y], in_use=[X]) == [Y]

    run(scenario())
