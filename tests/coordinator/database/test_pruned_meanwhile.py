"""F2, F5 with two coordinators: one prunes releases while the other takes an upload of the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.copies.networks import AllowedNetworks
from coordinator.api.pruning import PruneDesk, Retention
from coordinator.database import generation, snapshot
from coordinator.database.database import Database
from coordinator.database.releases import Recorded
from coordinator.staging.depot import StagingDepot
from coordinator.uploads.desk import UploadDesk, UploadLimits
from coordinator.uploads.verifying import Wanted
from depot.artifact import ArtifactHash
from tests.coordinator.database.making import opened
from tests.coordinator.releases.builder import NOW_S, ReleaseBuilder, small_release, zip_bytes
from tests.coordinator.staging.bench import Bench

KEEP_NOTHING = Retention(previous_targets=0, newest=0)
OF_AN_UPLOAD = ("its rehearsal", "its recording")
LIMITS = UploadLimits(
    max_size_bytes=1 << 20, max_concurrent=2, networks=AllowedNetworks.of(["127.0.0.0/8"])
)


class Body:
    """A release in memory, as the body of a request."""

    def __init__(self, content: bytes) -> None:
        self._left = memoryview(content)

    def readinto(self, buffer: memoryview, /) -> int:
        some = self._left[: len(buffer)]
        buffer[: len(some)] = some
        self._left = self._left[len(some) :]
        return len(some)

    def abort(self) -> None:
        self._left = memoryview(b"")


class Interrupted:
    """A database in which something else happens before one of the transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.before: dict[int, Callable[[], Awaitable[object]]] = {}
        self._runs = 0

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self._runs += 1
        if meanwhile := self.before.get(self._runs):
            await meanwhile()
        return await self._database.run(work, *arguments)


class Fleet:
    """One coordinator that takes uploads, and another one that prunes."""

    def __init__(self, here: Interrupted, elsewhere: Database, staging: StagingDepot) -> None:
        self.here = here
        self.elsewhere = elsewhere
        self.staging = staging
        self._uploads = self._desk(here, staging)

    def _desk(self, database: Any, staging: Any) -> UploadDesk:
        return UploadDesk(database, staging, LIMITS, lambda: None, clock=lambda: NOW_S)

    async def prune(self) -> None:
        class Awake:
            def wake(self) -> None:
                """Nothing replicates here."""

        cycle: Any = Awake()
        agents: Any = None  # there are no sleds to be asked
        desk = self._desk(self.elsewhere, None)
        try:
            await PruneDesk(self.elsewhere, desk, cycle, agents).prune(KEEP_NOTHING)
        finally:
            desk.close()

    async def upload(self, builder: ReleaseBuilder) -> Recorded:
        source = Body(zip_bytes(builder.publish()))
        return await self._uploads.upload(source, Wanted(), (builder.trusted,))

    async def look(self) -> snapshot.DatabaseSnapshot:
        return await self.elsewhere.run(snapshot.read)

    async def holds(self, its: set[ArtifactHash]) -> None:
        """What was acknowledged is wanted, and staged, in the database and on the disk."""
        found = await self.look()
        assert its <= found.wanted.keys()
        assert its <= found.staged[self.staging.id]
        assert its <= self.staging.held()

    def close(self) -> None:
        self._uploads.close()


@pytest.fixture
async def fleet(database: Database, database_url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with await opened(database_url) as other, Bench(tmp_path / "staging").depot() as staging:
        made = Fleet(Interrupted(database), other, staging)
        yield made
        made.close()


@pytest.mark.parametrize("before", range(1, 3), ids=OF_AN_UPLOAD)
async def test_f5_a_release_that_is_pruned_while_it_is_uploaded_again_is_there_when_it_is_answered(
    fleet: Fleet, before: int
) -> None:
    builder = small_release()
    its = {artifact.sha256 for artifact in (await fleet.upload(builder)).release.artifacts}
    known = await fleet.look()
    fleet.here.before[2 + before] = fleet.prune
    again = await fleet.upload(builder)
    assert again.inserted, "it had to be recorded anew"
    await fleet.holds(its)
    # A sled that was told to drop its artifacts meanwhile is told to hold them, as something new.
    assert (await fleet.look()).generation >= known.generation + 2


async def test_f5_so_is_one_that_shares_artifacts_with_what_is_pruned(fleet: Fleet) -> None:
    await fleet.upload(small_release())
    fleet.here.before[4] = fleet.prune
    newer = small_release("2.0.0")
    its = {artifact.sha256 for artifact in (await fleet.upload(newer)).release.artifacts}
    await fleet.holds(its)
    assert [release.version for release in (await fleet.look()).releases] == ["2.0.0"]


async def test_f2_whichever_comes_first_what_is_recorded_is_staged(fleet: Fleet) -> None:
    builder = small_release()
    raised = await fleet.elsewhere.run(generation.read)
    for _ in range(5):
        recorded, _ = await asyncio.gather(fleet.upload(builder), fleet.prune())
        found = await fleet.look()
        its = {artifact.sha256 for artifact in recorded.release.artifacts}
        assert found.wanted.keys() in (its, set())
        assert its <= fleet.staging.held()
        assert found.generation > raised
        raised = found.generation
        await fleet.prune()
        raised = max(raised, (await fleet.look()).generation)
