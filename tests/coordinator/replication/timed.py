"""Plans in time: a model of sleds and a coordinator, each behind a link of the same rate.

A step is as long as one hop takes, from a request or a byte that arrives to a byte that leaves.
What a node has of an artifact when a step begins is what it can pass on in it. A link is shared
equally by the streams that have something to send; a stream that gets less than its share of one
link leaves the rest of it unused, so what comes out is rather too long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from coordinator.replication.plan import plan
from coordinator.replication.values import MIB, Inventory, Plan, Policy, SledInventory, Start
from depot.artifact import ArtifactHash, Generation

STAGING: Final = "the coordinator"
Replica = tuple[ArtifactHash, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the nodes and links can do.

    Attributes:
        step_s: one hop.
        rate_bytes_per_s: of each link, in each direction, but for those in `slow`.
        requests_per_step: that the coordinator gets answered.
        streams_in: that a sled receives at once, at most.
    """

    step_s: float = 0.02
    rate_bytes_per_s: float = 125e6
    requests_per_step: int = 8
    streams_in: int = 8
    slow: Mapping[str, float] = field(default_factory=dict)

    def step_bytes(self, node: str) -> float:
        return self.step_s * self.slow.get(node, self.rate_bytes_per_s)


@dataclass(slots=True)
class Stream:
    """One put or copy."""

    artifact: ArtifactHash
    source: str
    target: str
    start: Start = Start.NOW
    after: str | None = None


class Timeline:
    """Runs a plan. `done_s` says when each replica was whole."""

    def __init__(self, fleet: Inventory, todo: Plan, network: Network) -> None:
        self.done_s: dict[Replica, float] = {}
        self._sizes = fleet.sizes
        self._network = network
        self._got: dict[Replica, float] = {
            (artifact, sled.id): fleet.sizes[artifact]
            for sled in fleet.sleds
            for artifact in sled.held
        }
        self._got |= {(artifact, STAGING): fleet.sizes[artifact] for artifact in fleet.staged_here}
        self._waiting = [Stream(put.artifact, STAGING, put.target) for put in todo.puts]
        self._waiting += (
            Stream(copy.artifact, copy.sources[0], copy.target, copy.start, copy.after)
            for copy in todo.copies()
        )
        self._running: list[Stream] = []
        self._steps = 0

    def run(self) -> float:
        """Seconds until all of it is done."""
        while self._waiting or self._running:
            self._steps += 1
            self._begin()
            if not self._running:
                raise RuntimeError(f"nothing runs, and {len(self._waiting)} wait for each other")
            self._move()
        return self._steps * self._network.step_s

    def _begin(self) -> None:
        receiving = Counter(stream.target for stream in self._running)
        begun: list[Stream] = []
        waiting: list[Stream] = []
        for stream in self._waiting:
            room = receiving[stream.target] < self._network.streams_in
            if room and len(begun) < self._network.requests_per_step and self._can_begin(stream):
                begun.append(stream)
                receiving[stream.target] += 1
            else:
                waiting.append(stream)
        self._running += begun
        self._waiting = waiting

    def _can_begin(self, stream: Stream) -> bool:
        match stream.start, stream.after:
            case Start.BEGUN, str(after):
                return self._got.get((stream.artifact, after), 0) > 0
            case Start.FINISHED, str(after):
                return (stream.artifact, after) in self.done_s
            case _:
                return True

    def _move(self) -> None:
        behind = {id(stream): self._behind(stream) for stream in self._running}
        busy = [stream for stream in self._running if behind[id(stream)] > 0]
        sending = Counter(stream.source for stream in busy)
        receiving = Counter(stream.target for stream in busy)
        for stream in busy:
            self._got[stream.artifact, stream.target] = self._got.get(
                (stream.artifact, stream.target), 0
            ) + min(
                behind[id(stream)],
                self._network.step_bytes(stream.source) / sending[stream.source],
                self._network.step_bytes(stream.target) / receiving[stream.target],
            )
        self._running = [stream for stream in self._running if not self._ended(stream)]

    def _behind(self, stream: Stream) -> float:
        return self._got.get((stream.artifact, stream.source), 0) - self._got.get(
            (stream.artifact, stream.target), 0
        )

    def _ended(self, stream: Stream) -> bool:
        replica = (stream.artifact, stream.target)
        ended = self._got.get(replica, 0) >= self._sizes[stream.artifact] - 1
        if ended:
            self._got[replica] = self._sizes[stream.artifact]
            self.done_s[replica] = self._steps * self._network.step_s
        return ended


def release(sleds: int, sizes_mib: tuple[int, ...], *, relays: bool = True) -> Inventory:
    """A fleet that has nothing of a release that was just uploaded."""
    wanted = {ArtifactHash.of(bytes([number])): size * MIB for number, size in enumerate(sizes_mib)}
    return Inventory(
        generation=Generation(1),
        sizes=wanted,
        sleds=tuple(SledInventory(id=f"sled-{number}", relays=relays) for number in range(sleds)),
        staged_here=frozenset(wanted),
    )


def transfers(fleet: Inventory, policy: Policy, network: Network, seed: int = 1) -> float:
    """How long a plan takes, in times that all of it needs over one link."""
    whole_s = sum(fleet.sizes.values()) / network.rate_bytes_per_s
    return Timeline(fleet, plan(fleet, policy, Random(seed)), network).run() / whole_s
