"""A whole fleet in memory: sleds, one database, and any number of coordinators.

F2 is checked with each deletion: the last place that holds what a release refers to keeps it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.cycle import Cycle
from coordinator.replication.plan import plan
from coordinator.replication.ports import Agent
from coordinator.values import Sled, SledState
from depot.artifact import ArtifactHash
from depot.errors import NotFound
from tests.coordinator.replication.sim_database import QUERY_S, SimDatabase, SimRecords
from tests.coordinator.replication.sim_sleds import Network, SimSled
from tests.coordinator.replication.stalling import Stalling


def artifact(number: int) -> ArtifactHash:
    return ArtifactHash.of(str(number).encode())


@dataclass(frozen=True)
class SimStaged:
    path: Path
    size_bytes: int


class SimStaging:
    """One coordinator's staging; survives it."""

    def __init__(self, id_: str, network: Network) -> None:
        self.id = id_
        self.network = network
        self.content: set[ArtifactHash] = set()
        self._moment = 0
        self._claimed: Counter[ArtifactHash] = Counter()
        self._let_go: dict[ArtifactHash, int] = {}

    def held(self) -> frozenset[ArtifactHash]:
        return frozenset(self.content)

    def moment(self) -> int:
        return self._moment

    async def locate(self, artifact: ArtifactHash) -> SimStaged:
        if artifact not in self.content:
            raise NotFound(f"{artifact} is not staged")
        return SimStaged(Path(f"/staging/{artifact}"), self.network.sizes[artifact])

    async def verify(self, artifact: ArtifactHash) -> bool:
        return artifact in self.content

    async def drop(self, artifacts: Collection[ArtifactHash], *, since: int) -> list[ArtifactHash]:
        await asyncio.sleep(QUERY_S)
        dropped = sorted(
            each
            for each in artifacts
            if each in self.content
            and not self._claimed[each]
            and self._let_go.get(each, 0) <= since
        )
        for each in dropped:
            self.content.discard(each)
            self.network.on_lost(self.id, each)
        return dropped

    @asynccontextmanager
    async def claim(self, artifacts: Collection[ArtifactHash]) -> AsyncIterator[None]:
        self._claimed.update(artifacts)
        try:
            yield
        finally:
            self._moment += 1
            self._claimed.subtract(artifacts)
            self._let_go.update(dict.fromkeys(artifacts, self._moment))


@dataclass
class SimCoordinator:
    """One coordinator. `staging` outlives a crash; everything else ends with `kill`."""

    fleet: SimFleet
    id: str
    staging: SimStaging
    options: ReplicationOptions
    stalling: Stalling
    cycle: Cycle | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def records(self) -> SimRecords:
        return SimRecords(self.fleet.database, self.id)

    async def start(self) -> Self:
        self.stalling = Stalling()
        composed: asyncio.Future[Cycle] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(composed))
        self.cycle = await composed
        return self

    async def _run(self, composed: asyncio.Future[Cycle]) -> None:
        async with replication(
            records=self.stalling.around(self.records),
            staging=self.stalling.around(self.staging),
            agent_of=self._agent_of,
            planner=plan,
            options=self.options,
            rng=random.Random(self.id),
            clock=asyncio.get_running_loop().time,
        ) as cycle:
            composed.set_result(cycle)
            await cycle.run()

    def _agent_of(self, sled: Sled) -> Agent:
        agent: Agent = self.stalling.around(self.fleet.network.agent_of(sled))
        return agent

    async def kill(self) -> None:
        self.stalling.go_on()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if not self._task.cancelled() and (error := self._task.exception()):
                raise error
        self._task = self.cycle = None

    async def upload(self, version: str, artifacts: Collection[ArtifactHash]) -> None:
        """What an upload comes to: claim, hold, record in one transaction, wake."""
        async with self.staging.claim(artifacts):
            for each in artifacts:
                await asyncio.sleep(QUERY_S)
                self.staging.content.add(each)

            def record(database: SimDatabase) -> None:
                database.add_release(version, artifacts)
                database.incomplete.discard(version)
                before = database.staged.get(self.id, frozenset())
                database.staged[self.id] = before | frozenset(artifacts)

            await self.records.run(record)
        self.wake()

    async def remove(self, version: str) -> None:
        await self.records.run(lambda database: database.remove_release(version))
        self.wake()

    def wake(self) -> None:
        if self.cycle is not None:
            self.cycle.wake()


class SimFleet:
    """Everything together; an async context manager."""

    def __init__(self, sleds: int = 4) -> None:
        self.network = Network(on_lost=self._check_f2)
        self.database = SimDatabase(self.network)
        self.coordinators: list[SimCoordinator] = []
        self.broken: list[str] = []
        self.sleds: list[SimSled] = self.network.add(*(f"sled-{n}" for n in range(sleds)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for coordinator in self.coordinators:
            await coordinator.kill()
        await self.network.close()
        assert self.broken == []

    def artifacts(self, *sizes: int, first: int = 0) -> list[ArtifactHash]:
        """Artifacts of so many bytes, numbered from `first`."""
        made = [artifact(number) for number in range(first, first + len(sizes))]
        self.network.sizes.update(zip(made, sizes, strict=True))
        return made

    async def coordinator(
        self, id_: str = "coordinator", options: ReplicationOptions | None = None
    ) -> SimCoordinator:
        """A running coordinator."""
        made = SimCoordinator(
            self,
            id_,
            SimStaging(id_, self.network),
            options or ReplicationOptions(),
            Stalling(),
        )
        self.coordinators.append(made)
        return await made.start()

    def places(self, artifact: ArtifactHash) -> list[str]:
        """Everywhere it is."""
        staged = [each.id for each in self.coordinators if artifact in each.staging.content]
        return self.network.holders(artifact) + staged

    def missing(self) -> list[tuple[str, ArtifactHash]]:
        """What a sled in service should hold and does not."""
        return [
            (sled.id, each)
            for sled in self.in_service()
            for each in sorted(self.database.wanted)
            if each not in sled.held
        ]

    def left_over(self) -> list[tuple[str, ArtifactHash]]:
        """What a sled in service holds and nobody wants there."""
        return [
            (sled.id, each)
            for sled in self.in_service()
            for each in sorted(sled.held)
            if each not in self.database.wanted | self.database.kept.get(sled.id, frozenset())
        ]

    def in_service(self) -> list[SimSled]:
        expunged = self.database.expunged
        return [sled for id_, sled in self.network.sleds.items() if id_ not in expunged]

    async def until(self, reached: Callable[[], bool], *, within_s: float = 600.0) -> float:
        """Let time pass until something is so; how many seconds that took."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        while not reached():
            assert loop.time() - began_s < within_s, f"not within {within_s} s"
            await asyncio.sleep(0.05)
        return loop.time() - began_s

    async def until_replicated(self, *, within_s: float = 600.0) -> float:
        return await self.until(
            lambda: not self.missing() and not self.left_over(), within_s=within_s
        )

    def state(self, sled_id: str) -> SledState | None:
        seen = self.database.sightings.get(sled_id)
        return None if seen is None else seen.state

    def _check_f2(self, where: str, artifact: ArtifactHash) -> None:
        if artifact in self.database.wanted and not self.places(artifact):
            self.broken.append(f"{where} deleted the last copy of {artifact}")
