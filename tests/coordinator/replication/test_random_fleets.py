"""F1, F2 and F4 over fleets, coordinators and faults at random; at the end all is quiet.

F2 is checked with each deletion, by `SimFleet`. What fails prints the steps that lead to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from coordinator.errors import DatabaseUnavailable
from coordinator.values import SledState
from depot.artifact import ArtifactHash, Generation
from tests.coordinator.replication.sim_fleet import SimCoordinator, SimFleet
from tests.coordinator.replication.sim_sleds import Faults, SimSled, refused
from tests.coordinator.replication.virtual import run

MIB = 1 << 20
SIZES = [0, 1, 1000, MIB, MIB, 10 * MIB, 200 * MIB, MIB]
FAULTS: dict[str, Callable[[], Faults]] = {
    "down": lambda: Faults(down=True),
    "hangs": lambda: Faults(hangs=True),
    "slow": lambda: Faults(latency_s=4.0),
    "refuses": lambda: Faults(refusal=lambda: refused(503, "NoDataset")),
    "full": lambda: Faults(full=True),
    "busy": lambda: Faults(busy=30),
    "creeps": lambda: Faults(bytes_per_s=1000),
    "fails": lambda: Faults(copies_fail=10),
    "stands still": lambda: Faults(copies_stand_still=True),
    "forgets": lambda: Faults(forgets=True),
    "none": Faults,
}
Step = tuple[str, int, int]
"""What, to which (modulo how many there are), and how or with what."""
ACTIONS = [
    "upload",
    "upload",
    "upload",
    "remove",
    "remove",
    "fault",
    "fault",
    "restart",
    "lose",
    "pin",
    "unpin",
    "stall",
    "go on",
    "kill",
    "start",
    "database",
    "expunge",
    "ahead",
    "reset",
    "wait",
]


@dataclass
class Story:
    """Takes steps in a fleet."""

    fleet: SimFleet
    artifacts: list[ArtifactHash]
    uploads: int = 0
    contents: dict[str, list[ArtifactHash]] = field(default_factory=dict)

    async def take(self, step: Step) -> None:
        action, which, how = step
        coordinators, sleds = self.fleet.coordinators, self.fleet.sleds
        coordinator, sled = coordinators[which % len(coordinators)], sleds[which % len(sleds)]
        match action:
            case "upload":
                await self._upload(coordinator, how)
            case "remove":
                await self._remove(coordinator, how)
            case "wait":
                await asyncio.sleep(how)
            case "database":
                self.fleet.database.down = how % 2 == 0
            case "stall" | "go on" | "kill" | "start":
                await self._stop_or_go(action, coordinator)
            case "pin" | "unpin":
                self._pin(action, sled, how)
            case _:
                await self._befall(action, sled, how)

    async def _stop_or_go(self, action: str, coordinator: SimCoordinator) -> None:
        match action:
            case "stall":
                coordinator.stalling.stop()
            case "go on":
                coordinator.stalling.go_on()
            case "kill":
                await coordinator.kill()
            case "start" if coordinator.cycle is None:
                await coordinator.start()
            case _:
                pass  # it runs already

    def _pin(self, action: str, sled: SimSled, how: int) -> None:
        sled.pinned.pop(f"pin-{how % 2}", None)
        if action == "pin" and sled.config:
            some = sorted(sled.config)
            sled.pinned[f"pin-{how % 2}"] = frozenset([some[how % len(some)]])

    async def _befall(self, action: str, sled: SimSled, how: int) -> None:
        match action:
            case "fault":
                sled.faults = list(FAULTS.values())[how % len(FAULTS)]()
            case "restart":
                await sled.restart()
            case "lose":
                self._lose(sled, how)
            case "expunge":
                self.fleet.database.expunged ^= {sled.id}
            case "ahead" if sled.generation is not None and how % 3 == 0:
                sled.generation = Generation(sled.generation + 1000)
            case "reset":
                await sled.reset()
            case _:
                pass  # there is nothing yet that could be ahead

    async def _upload(self, coordinator: SimCoordinator, how: int) -> None:
        """A new release of some artifacts, or one that is there already."""
        known = sorted(self.fleet.database.releases)
        if how % 3 == 0 and known:
            version = known[how % len(known)]
        else:
            self.uploads += 1
            version = f"{self.uploads}"
            number = len(self.artifacts)
            self.contents[version] = [
                self.artifacts[n] for n in range(number) if (how + 1) >> (n % 6) & 1
            ]
        if coordinator.cycle is not None:
            with contextlib.suppress(DatabaseUnavailable):
                await coordinator.upload(version, self.contents[version])

    async def _remove(self, coordinator: SimCoordinator, how: int) -> None:
        if known := sorted(self.fleet.database.releases):
            with contextlib.suppress(DatabaseUnavailable):
                await coordinator.remove(known[how % len(known)])

    def _lose(self, sled: SimSled, how: int) -> None:
        """A disk loses what another sled has: nothing protects the last copy from its own disk."""
        holders = self.fleet.network.holders
        sled.lose([each for each in sorted(sled.held) if how % 4 and len(holders(each)) > 1])

    async def end_well(self) -> None:
        """All that is broken is repaired; then everything comes right by itself."""
        self.fleet.database.down = False
        self.fleet.database.expunged.clear()
        for sled in self.fleet.sleds:
            sled.faults, sled.pinned = Faults(), {}
        reached = [sled.generation or 0 for sled in self.fleet.sleds]
        self.fleet.database.generation = max(*reached, self.fleet.database.generation) + 1
        for coordinator in self.fleet.coordinators:
            coordinator.stalling.go_on()
            if coordinator.cycle is None:
                await coordinator.start()
        await self.fleet.until(self._is_well, within_s=3600)

    def _is_well(self) -> bool:
        fleet = self.fleet
        return not (
            fleet.missing()
            or fleet.left_over()
            or any(coordinator.staging.content for coordinator in fleet.coordinators)
            or any(fleet.database.staged.values())
            or fleet.database.incomplete
            or any(fleet.state(sled.id) is not SledState.OK for sled in fleet.sleds)
        )


steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 60)),
    min_size=5,
    max_size=40,
)


# Shrinking takes minutes, and a story of forty steps can be read as it is.
@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    sleds=st.integers(1, 5),
    coordinators=st.integers(1, 3),
    steps=steps,
    pause_s=st.sampled_from([0.0, 0.01, 0.1, 1.0, 20.0]),
)
def test_f1_f2_whatever_happens_all_comes_right_and_no_last_copy_is_deleted(
    sleds: int, coordinators: int, steps: list[Step], pause_s: float
) -> None:
    async def scenario() -> None:
        async with SimFleet(sleds=sleds) as fleet:
            story = Story(fleet, fleet.artifacts(*SIZES))
            for number in range(coordinators):
                await fleet.coordinator(f"coordinator-{number}")
            for step in steps:
                await story.take(step)
                await asyncio.sleep(pause_s)
            await story.end_well()

    run(scenario())
