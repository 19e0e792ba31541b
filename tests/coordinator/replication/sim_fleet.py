"""A whole fleet in memory: sleds, one database, and any number of coordinators.

F2 is checked with each deletion: the last place that holds what a release refers to keeps it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from coordinator.errors import DatabaseUnavailable
from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.cycle import Cycle
from coordinator.replication.plan import plan
from coordinator.replication.ports import Agent, FleetSnapshot
from coordinator.values import RequestRecord, Sled, SledSighting, SledState
from depot.artifact import ArtifactHash, Generation
from depot.errors import NotFound
from tests.coordinator.replication.sim_sleds import Network, SimSled

T = TypeVar("T")
QUERY_S = 0.001


def artifact(number: int) -> ArtifactHash:
    return ArtifactHash.of(str(number).encode())


@dataclass
class SimDatabase:
    """Rows, changed by one coordinator at a time.

    Attributes:
        down: every transaction fails.
    """

    network: Network
    generation: int = 1
    releases: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    kept: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    staged: dict[str, frozenset[ArtifactHash]] = field(default_factory=dict)
    expunged: set[str] = field(default_factory=set)
    sightings: dict[str, SledSighting] = field(default_factory=dict)
    requests: list[RequestRecord] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    down: bool = False

    @property
    def wanted(self) -> frozenset[ArtifactHash]:
        return frozenset().union(*self.releases.values())

    def add_release(self, version: str, artifacts: Iterable[ArtifactHash]) -> None:
        before = self.wanted
        self.releases[version] = frozenset(artifacts)
        self._raise(before)

    def remove_release(self, version: str) -> None:
        before = self.wanted
        del self.releases[version]
        self.incomplete.discard(version)
        self._raise(before)

    def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        outside = pinned & self.kept.get(sled_id, frozenset()) | pinned - self.wanted
        if outside != self.kept.get(sled_id, frozenset()):
            self.kept[sled_id] = outside
            self.generation += 1

    def _raise(self, before: frozenset[ArtifactHash]) -> None:
        if self.wanted != before:
            self.generation += 1


class SimRecords:
    """The database as one coordinator sees it: `Records`."""

    def __init__(self, database: SimDatabase, coordinator_id: str) -> None:
        self.database = database
        self._id = coordinator_id

    async def run(self, work: Callable[[SimDatabase], T]) -> T:
        await asyncio.sleep(QUERY_S)
        if self.database.down:
            raise DatabaseUnavailable("the database cannot be reached")
        result = work(self.database)
        await asyncio.sleep(QUERY_S)
        return result

    async def snapshot(self) -> FleetSnapshot:
        return await self.run(self._snapshot)

    def _snapshot(self, database: SimDatabase) -> FleetSnapshot:
        rows = [database.network.sleds[id_].row() for id_ in sorted(database.network.sleds)]
        elsewhere = [held for id_, held in database.staged.items() if id_ != self._id]
        return FleetSnapshot(
            generation=Generation(database.generation),
            sizes={each: database.network.sizes[each] for each in database.wanted},
            sleds=tuple(row for row in rows if row.id not in database.expunged),
            kept=dict(database.kept),
            staged_here=database.staged.get(self._id, frozenset()),
            staged_elsewhere=frozenset().union(*elsewhere),
            releases=dict(database.releases),
            incomplete=frozenset(database.incomplete),
        )

    async def generation(self) -> Generation:
        return await self.run(lambda database: Generation(database.generation))

    async def keep_pins(self, sled_id: str, pinned: frozenset[ArtifactHash]) -> None:
        await self.run(lambda database: database.keep_pins(sled_id, pinned))

    async def write_staged(self, held: Callable[[], frozenset[ArtifactHash]]) -> None:
        await self.run(lambda database: database.staged.update({self._id: held()}))

    async def strike_staged(
        self, artifacts: Collection[ArtifactHash], at_generation: Generation
    ) -> bool:
        def strike(database: SimDatabase) -> bool:
            if database.generation != at_generation:
                return False
            left = database.staged.get(self._id, frozenset()).difference(artifacts)
            database.staged[self._id] = left
            return True

        return await self.run(strike)

    async def write_sightings(self, sightings: Sequence[SledSighting]) -> None:
        seen = {sighting.sled_id: sighting for sighting in sightings}
        await self.run(lambda database: database.sightings.update(seen))

    async def write_requests(
        self, requests: Sequence[RequestRecord], counts: Mapping[str, int]
    ) -> None:
        def write(database: SimDatabase) -> None:
            database.requests += requests
            database.counts.update(counts)

        await self.run(write)

    async def write_states(
        self, incomplete: Mapping[str, Collection[ArtifactHash]], complete: Collection[str]
    ) -> None:
        def write(database: SimDatabase) -> None:
            supplied = frozenset[ArtifactHash]().union(*database.staged.values())
            lost = {version for version, its in incomplete.items() if supplied.isdisjoint(its)}
            database.incomplete |= lost & database.releases.keys()
            database.incomplete -= set(complete)

        await self.run(write)


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


class Stalling:
    """Lets a coordinator stand still: no request leaves it, and no answer is seen.

    Attributes:
        stop_before: a call by which it stops, before anything of it is sent.
        stop_after: a call by which it stops, before anything is made of its answer.
    """

    def __init__(self) -> None:
        self._runs = asyncio.Event()
        self._runs.set()
        self.stop_before: str | None = None
        self.stop_after: str | None = None

    def stop(self) -> None:
        self._runs.clear()

    def go_on(self) -> None:
        self.stop_before = self.stop_after = None
        self._runs.set()

    @property
    def stands_still(self) -> bool:
        return not self._runs.is_set()

    async def runs(self, call: str | None = None) -> None:
        if call is not None and call == self.stop_before:
            self.stop()
        await self._runs.wait()

    async def has_run(self, call: str) -> None:
        if call == self.stop_after:
            self.stop()
        await self._runs.wait()

    def around(self, target: object) -> Any:
        return _Stalled(target, self)


class _Stalled:
    def __init__(self, target: object, stalling: Stalling) -> None:
        self._target = target
        self._stalling = stalling

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **named: Any) -> Any:
            await self._stalling.runs(name)
            try:
                return await method(*args, **named)
            finally:
                await self._stalling.has_run(name)

        return call


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
        self._stack = AsyncExitStack()
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
