"""What goes wrong in a fleet: everything once in each round, in an order that is drawn."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.system.agents import RunningAgent
from tests.system.asking import ask
from tests.system.coordinators import RunningCoordinator
from tests.system.fleet import UNRELIABLE, Fleet
from tests.system.fleet_users import LOST
from tests.system.journal import Journal
from tests.system.tally import Kind

Harm = Callable[[random.Random], None]

LOOK_AGAIN_S: Final = 0.2
PASSES_WITHIN_S: Final = 30.0
FULL_PASS: Final = 2
"""Once so many more have begun, one of them has also ended."""


class Harms:
    """One thread for what happens to coordinators, one for what happens to sleds."""

    def __init__(self, fleet: Fleet, journal: Journal) -> None:
        self._fleet = fleet
        self._journal = journal

    def to_coordinators(self, rng: random.Random) -> None:
        """Pause a coordinator, kill one, cut both off from the database."""
        harms = (self._pause_coordinator, self._kill_coordinator, self._cut)
        self._keep_doing(harms, (0.5, 3), rng)

    def to_sleds(self, rng: random.Random) -> None:
        """Kill, restart, pause and rob sleds, and have consumers on them pin things."""
        harms = (
            *(self._kill, self._restart, self._pause, self._lose, self._empty),
            *(self._pin, self._pin, self._unpin),
        )
        self._keep_doing(harms, (0.3, 2), rng)

    def _keep_doing(
        self, harms: Sequence[Harm], gaps_s: tuple[float, float], rng: random.Random
    ) -> None:
        rounds = shuffled_rounds(harms, rng)
        while not self._journal.stop.wait(rng.uniform(*gaps_s)):
            next(rounds)(rng)

    def _did(self, kind: Kind, who: str) -> None:
        self._journal.tally.add(kind, who)
        self._journal.note(f"{kind}: {who}")

    # ---- coordinators

    def _pause_coordinator(self, rng: random.Random) -> None:
        """Stop one until the other has made a whole pass, and then for a while."""
        paused, other = rng.sample(self._fleet.coordinators, 2)
        with stopped(paused):
            if not self._makes_a_pass(other):
                self._journal.note(f"paused {paused.home.name}, and no pass was made")
                return
            self._did(Kind.COORDINATOR_PAUSED, paused.home.name)
            self._journal.stop.wait(rng.uniform(0, 2))

    def _makes_a_pass(self, coordinator: RunningCoordinator) -> bool:
        """Whether a pass began, and ended, before it was over or took too long."""
        before, end_s = None, time.monotonic() + PASSES_WITHIN_S
        while not self._journal.stop.wait(LOOK_AGAIN_S) and time.monotonic() < end_s:
            begun = _passes(coordinator)
            if before is None:
                before = begun
            elif begun is not None and begun >= before + FULL_PASS:
                return True
        return False

    def _kill_coordinator(self, rng: random.Random) -> None:
        coordinator = rng.choice(self._fleet.coordinators)
        coordinator.kill()
        self._did(Kind.COORDINATOR_KILLED, coordinator.home.name)
        coordinator.start()

    def _cut(self, _: random.Random) -> None:
        count = self._fleet.cut_connections()
        self._journal.note(f"cut {count} connections to the database")
        if count:
            self._journal.tally.add(Kind.DATABASE_CUT)

    # ---- sleds

    def _kill(self, rng: random.Random) -> None:
        agent = rng.choice(self._fleet.agents)
        agent.kill()
        self._did(Kind.SLED_KILLED, agent.home.name)
        agent.start()

    def _restart(self, rng: random.Random) -> None:
        agent = rng.choice(self._fleet.agents)
        agent.stop()
        self._did(Kind.SLED_RESTARTED, agent.home.name)
        agent.start()

    def _pause(self, rng: random.Random) -> None:
        agent = rng.choice(self._fleet.agents)
        with stopped(agent):
            self._did(Kind.SLED_PAUSED, agent.home.name)
            self._journal.stop.wait(rng.uniform(0.5, 3))

    def _lose(self, rng: random.Random) -> None:
        agent = self._unreliable(rng)
        self._rob(Kind.DATASET_LOST, agent, [rng.choice(agent.datasets)], state=False)

    def _empty(self, rng: random.Random) -> None:
        agent = self._unreliable(rng)
        self._rob(Kind.SLED_EMPTIED, agent, agent.datasets, state=rng.random() < 0.5)

    def _rob(
        self, kind: Kind, agent: RunningAgent, datasets: Sequence[Path], *, state: bool
    ) -> None:
        lost = [path.name for path in datasets]
        self._did(kind, f"{agent.home.name} {lost}, with its state: {state}")
        self._fleet.lose(agent, datasets, state=state)

    def _unreliable(self, rng: random.Random) -> RunningAgent:
        return self._fleet.agents[rng.randrange(UNRELIABLE)]

    def _pin(self, rng: random.Random) -> None:
        agent = rng.choice(self._fleet.agents)
        listed = ask(agent.agent_url, "/artifacts").body.get("list", {})
        if listed:
            body = {"artifacts": [rng.choice(sorted(listed))]}
            self._pins(Kind.PINNED, agent, "PUT", body)

    def _unpin(self, rng: random.Random) -> None:
        # Of those that have something: with any, the whole of a slow run may find none.
        agents = self._fleet.agents
        if holding := [each for each in agents if ask(each.agent_url, "/pins").body.get("pins")]:
            self._pins(Kind.UNPINNED, rng.choice(holding), "DELETE", None)

    def _pins(self, kind: Kind, agent: RunningAgent, method: str, body: object) -> None:
        answer = ask(agent.agent_url, "/pins/consumer", method, body)
        self._journal.note(f"pins: {method}-{answer.status} {agent.home.name} {body}")
        if answer.status < 300:
            self._journal.tally.add(kind, agent.home.name)


def shuffled_rounds(harms: Sequence[Harm], rng: random.Random) -> Iterator[Harm]:
    """Each of them once in every round."""
    while True:
        yield from rng.sample(harms, len(harms))


@contextmanager
def stopped(process: RunningAgent | RunningCoordinator) -> Iterator[None]:
    """SIGSTOP a process for the block."""
    process.send(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send(signal.SIGCONT)


def _passes(coordinator: RunningCoordinator) -> int | None:
    """How many have begun; None when it does not say."""
    try:
        answer = ask(coordinator.url, "/v1/replication")
    except LOST:
        return None
    return int(answer.body["last_pass"]["passes"]) if answer.status == 200 else None
