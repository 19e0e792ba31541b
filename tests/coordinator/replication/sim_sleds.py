"""Sleds in memory, with the agents' rules: the fence, pins, copies that run, finish or fail.

Time is the event loop's. `SimSled.faults` says what goes wrong, `Network.on_lost` is told of each
artifact that a sled deletes because of a config.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from agent.client import PutAnswer
from agent.wire.artifacts import ArtifactListBody
from agent.wire.copies import CopyBody
from agent.wire.identity import DatasetStateBody, IdentityBody, OfferBody
from coordinator.replication.ports import Agent
from coordinator.values import Sled
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import Refused, Unreachable

THEN = datetime.fromtimestamp(0, UTC)
BYTES_PER_S = 100 << 20
PARTS = 32
LOOK_S = 0.5
IDLE_S = 60.0
"""An agent gives up a copy of which nothing comes for so long."""
CopyState = Literal["running", "succeeded", "failed", "superseded"]


def refused(status: int, code: str, **details: object) -> Refused:
    return Refused("http://sim", status, remote_code=code, remote_details=details)


@dataclass
class Faults:
    """What goes wrong on a sled.

    Attributes:
        down: nothing answers; a request fails after `timeout_s`.
        hangs: a request is never answered.
        latency_s: of each answer.
        refusal: is raised by every request, if it says so.
        retry_after_s: is said with 429 and 507.
        busy: so many puts and copies are refused with 429 before one is taken.
        full: puts and copies are refused with 507.
        copies_fail: so many copies fail after they began.
        copies_stand_still: copies begin and do not go on.
        forgets: a put or copy that succeeded leaves nothing behind.
        offers_late: nobody can read from it what is still arriving, though it says so.
    """

    down: bool = False
    timeout_s: float = 5.0
    hangs: bool = False
    latency_s: float = 0.002
    refusal: Callable[[], Exception | None] = lambda: None
    retry_after_s: int | None = None
    busy: int = 0
    full: bool = False
    copies_fail: int = 0
    copies_stand_still: bool = False
    forgets: bool = False
    offers_late: bool = False
    bytes_per_s: int = BYTES_PER_S


@dataclass
class SimCopy:
    id: str
    artifact: ArtifactHash
    generation: Generation
    sources: tuple[str, ...]
    state: CopyState = "running"
    bytes_done: int = 0
    error: str | None = None
    task: asyncio.Task[None] | None = None
    began_s: float = 0.0
    ended_s: float | None = None

    def body(self, total: int) -> CopyBody:
        return CopyBody(
            copy_id=self.id,
            sha256=str(self.artifact),
            generation=int(self.generation),
            sources=self.sources,
            state=self.state,
            bytes_done=self.bytes_done,
            bytes_total=total,
            started_at=THEN + timedelta(seconds=self.began_s),
            finished_at=None if self.ended_s is None else THEN + timedelta(seconds=self.ended_s),
            error=self.error,
        )


@dataclass
class Network:
    """All sleds, and how large everything is."""

    sizes: dict[ArtifactHash, int] = field(default_factory=dict)
    sleds: dict[str, SimSled] = field(default_factory=dict)
    on_lost: Callable[[str, ArtifactHash], None] = lambda _where, _artifact: None
    around: Callable[[SimSled], Agent] = lambda sled: sled
    """What coordinators reach a sled through."""

    def add(self, *ids: str) -> list[SimSled]:
        for id_ in ids:
            self.sleds[id_] = SimSled(id_, self)
        return [self.sleds[id_] for id_ in ids]

    def at_depot(self, url: str) -> SimSled:
        return self.sleds[url.removeprefix("http://depot-")]

    def agent_of(self, sled: Sled) -> Agent:
        return self.around(self.sleds[sled.agent_url.removeprefix("http://agent-")])

    def holders(self, artifact: ArtifactHash) -> list[str]:
        return [id_ for id_, sled in self.sleds.items() if artifact in sled.held]

    async def close(self) -> None:
        for sled in self.sleds.values():
            await sled.restart()


class SimSled:
    """One sled; an `Agent`.

    Attributes:
        asked: the operations it was asked for, in order.
        has_status: a sled of another maker has none.
        relays: others can read from it what is still arriving.
        datasets: that it says it has, and how they are.
        says_id: which sled it says that it is.
        most_at_once: puts and copies that it was ever busy with at once.
    """

    MAX_COPIES = 8

    def __init__(self, id_: str, network: Network) -> None:
        self.id = id_
        self.network = network
        self.generation: Generation | None = None
        self.config: frozenset[ArtifactHash] = frozenset()
        self.held: dict[ArtifactHash, int] = {}
        self.pinned: dict[str, frozenset[ArtifactHash]] = {}
        self.faults = Faults()
        self.has_status, self.relays = True, True
        self.says_id: str | None = None
        self.datasets: tuple[DatasetStateBody, ...] = ()
        self.asked: list[str] = []
        self.most_at_once = 0
        self._copies: dict[str, SimCopy] = {}
        self._arriving: set[ArtifactHash] = set()
        self._numbers = itertools.count()

    def row(self) -> Sled:
        return Sled(
            id=self.id, agent_url=f"http://agent-{self.id}", depot_url=f"http://depot-{self.id}"
        )

    # ---- what befalls it

    async def restart(self) -> None:
        """The process ends and begins: what was under way is forgotten."""
        tasks = [copy.task for copy in self._copies.values() if copy.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._copies.clear()
        self._arriving.clear()

    def lose(self, artifacts: Iterable[ArtifactHash]) -> None:
        """Its disks lose artifacts."""
        for artifact in artifacts:
            self.held.pop(artifact, None)

    # ---- what it answers

    async def identity(self) -> IdentityBody:
        await self._answers("identity")
        if not self.has_status:
            raise refused(404, "NotFound")
        return IdentityBody(
            sled_id=self.says_id, relay=OfferBody(offered=self.relays), datasets=self.datasets
        )

    async def put_config(self, config: ArtifactConfig) -> None:
        await self._answers("put_config")
        if self.generation is not None:
            self._fence_config(config)
        dropped = self.config - config.artifacts
        if in_use := sorted(dropped & frozenset().union(*self.pinned.values())):
            raise refused(400, "ArtifactInUse", artifacts=[str(each) for each in in_use])
        self.generation, self.config = config.generation, config.artifacts
        for artifact in sorted(self.held.keys() - config.artifacts):
            del self.held[artifact]
            self.network.on_lost(self.id, artifact)

    async def list_artifacts(self) -> ArtifactListBody:
        await self._answers("list")
        if self.generation is None:
            raise refused(400, "NoConfig")
        listed = {str(each): copies for each, copies in self.held.items() if each in self.config}
        return ArtifactListBody.model_construct(generation=int(self.generation), list=listed)

    async def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        await self._answers("pins")
        return dict(self.pinned)

    async def put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        content: Path | bytes,
        *,
        on_sent: Callable[[int], None] | None = None,
    ) -> PutAnswer:
        await self._answers("put")
        self._fence(artifact, generation)
        self._has_room()
        assert isinstance(content, Path)
        size_bytes = self.network.sizes[artifact]
        self._arriving.add(artifact)
        self._note()
        try:
            for part in range(1, PARTS + 1):
                await asyncio.sleep(size_bytes / PARTS / self.faults.bytes_per_s)
                if on_sent is not None:
                    on_sent(size_bytes * part // PARTS)
            await self._reachable()
            self._fence(artifact, generation, landing=True)
            self._take(artifact)
        finally:
            self._arriving.discard(artifact)
        return PutAnswer(datasets=2, successful_writes=2, sent=True)

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        await self._answers("copy")
        self._fence(artifact, generation)
        for copy in self._copies.values():
            if copy.artifact == artifact and copy.state == "running":
                return copy.id
        self._has_room()
        if len(self._arriving) >= self.MAX_COPIES:
            raise refused(429, "TooManyCopies")
        self._find(artifact, sources)
        copy = SimCopy(f"{self.id}-{next(self._numbers)}", artifact, generation, tuple(sources))
        copy.began_s = asyncio.get_running_loop().time()
        self._copies[copy.id] = copy
        self._arriving.add(artifact)
        self._note()
        copy.task = asyncio.create_task(self._copy(copy))
        return copy.id

    async def copies(self) -> tuple[CopyBody, ...]:
        await self._answers("copies")
        return tuple(self._body(copy) for copy in self._copies.values())

    async def copy_state(self, copy_id: str) -> CopyBody:
        await self._answers("copy_state")
        if copy_id not in self._copies:
            raise refused(404, "NotFound")
        return self._body(self._copies[copy_id])

    async def reset(self) -> None:
        """Forget config and generation; delete nothing."""
        self.generation, self.config = None, frozenset()

    # ---- its rules

    def _fence_config(self, config: ArtifactConfig) -> None:
        assert self.generation is not None
        same = config.generation == self.generation and config.artifacts == self.config
        if config.generation <= self.generation and not same:
            raise refused(409, "CONFIG_GENERATION", current_generation=int(self.generation))

    def _fence(
        self, artifact: ArtifactHash, generation: Generation, *, landing: bool = False
    ) -> None:
        if self.generation is None:
            raise refused(400, "NoConfig")
        if landing and artifact in self.config:
            return  # G5: the config that is current now wants it
        if landing or generation != self.generation:
            raise refused(409, "ARTIFACT_GENERATION", current_generation=int(self.generation))
        if artifact not in self.config:
            raise refused(400, "NotInConfig")

    def _has_room(self) -> None:
        if self.faults.busy > 0:
            self.faults.busy -= 1
            raise self._later(429, "TooManyPuts")
        if self.faults.full:
            raise self._later(507, "QuotaExceeded")

    def _later(self, status: int, code: str) -> Refused:
        error = refused(status, code)
        error.retry_after_s = self.faults.retry_after_s
        return error

    def _find(self, artifact: ArtifactHash, sources: Sequence[str]) -> SimSled:
        for url in sources:
            sled = self.network.at_depot(url)
            offered = sled.relays and not sled.faults.offers_late
            there = artifact in sled.held or (offered and artifact in sled._arriving)
            if there and not sled.faults.down and sled is not self:
                return sled
        raise refused(502, "DepotCopy")

    async def _copy(self, copy: SimCopy) -> None:
        try:
            await self._move(copy)
            await self._until_whole(copy)
            if self.faults.copies_fail > 0:
                self.faults.copies_fail -= 1
                raise refused(502, "DepotCopy")
            self._fence(copy.artifact, copy.generation, landing=True)
        except Refused as error:
            copy.state = "superseded" if error.status == 409 else "failed"
            copy.error = str(error)
        else:
            self._take(copy.artifact)
            copy.state = "succeeded"
        finally:
            copy.ended_s = asyncio.get_running_loop().time()
            self._arriving.discard(copy.artifact)

    async def _until_whole(self, copy: SimCopy) -> None:
        """Until any of the sources has it whole: the others pass on what arrives there."""
        idle_s = 0.0
        while True:
            self._find(copy.artifact, copy.sources)
            sources = [self.network.at_depot(url) for url in copy.sources]
            if any(copy.artifact in each.held and not each.faults.down for each in sources):
                return
            paces = [each.faults.bytes_per_s for each in sources if each.moves(copy.artifact)]
            idle_s = 0.0 if paces else idle_s + LOOK_S
            if idle_s >= IDLE_S:
                raise refused(502, "DepotCopy")
            copy.bytes_done += int(LOOK_S * max(paces, default=0))
            await asyncio.sleep(LOOK_S)

    def moves(self, artifact: ArtifactHash, seen: frozenset[str] = frozenset()) -> bool:
        """Whether more of an artifact comes to here: not in a circle, and from where it is."""
        if artifact in self.held:
            return True
        if self.id in seen or artifact not in self._arriving or self.faults.copies_stand_still:
            return False
        copies = [
            copy
            for copy in self._copies.values()
            if copy.artifact == artifact and copy.state == "running"
        ]
        sources = [self.network.at_depot(url) for copy in copies for url in copy.sources]
        return not copies or any(each.moves(artifact, seen | {self.id}) for each in sources)

    async def _move(self, copy: SimCopy) -> None:
        for _ in range(int(IDLE_S / LOOK_S)):
            if not self.faults.copies_stand_still:
                break
            await asyncio.sleep(LOOK_S)
        else:
            raise refused(502, "DepotCopy")
        left = self.network.sizes[copy.artifact]
        while left > 0:
            # As fast as the sled is now, not as it was when the copy began.
            pause_s = min(LOOK_S, left / self.faults.bytes_per_s)
            await asyncio.sleep(pause_s)
            moved = max(1, int(pause_s * self.faults.bytes_per_s))
            copy.bytes_done, left = copy.bytes_done + moved, left - moved

    def _take(self, artifact: ArtifactHash) -> None:
        if not self.faults.forgets:
            self.held[artifact] = 2

    def _body(self, copy: SimCopy) -> CopyBody:
        return copy.body(self.network.sizes[copy.artifact])

    def _note(self) -> None:
        self.most_at_once = max(self.most_at_once, len(self._arriving))

    async def _answers(self, operation: str) -> None:
        self.asked.append(operation)
        await self._reachable()
        await asyncio.sleep(self.faults.latency_s)
        if (error := self.faults.refusal()) is not None:
            raise error

    async def _reachable(self) -> None:
        if self.faults.hangs:
            await asyncio.Event().wait()
        if self.faults.down:
            await asyncio.sleep(self.faults.timeout_s)
            raise Unreachable(f"{self.id}: cannot connect in time")
