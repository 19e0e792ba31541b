"""A fleet that is mistreated for a while: F1, F2 and F5 are read from its disks and its database.

Rules kept here:

- Two coordinators on one PostgreSQL, six agents, all of them real processes. Both coordinators are
  given uploads and deletions of releases that share artifacts, while coordinators and agents are
  killed, paused for longer than a pass, cut off from the database, and sleds lose their disks.
- What is done is drawn from one seed, which is part of every failure's message:
  `SOAK_SEED=… SOAK_S=… pytest tests/system/test_fleet_soak.py` draws the same again, as far as the
  processes let it.
- F2 is looked at all the time: while the database wants an artifact, some directory has its file.
- After quiet, every dataset of every sled has exactly what is wanted there (F1), and the database
  what was acknowledged last (F5).
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests import ondisk
from tests.coordinator import postgres
from tests.needs import Need, lack
from tests.system.agents import RunningAgent
from tests.system.asking import Answer, ask, connect, read_answer
from tests.system.coordinators import RunningCoordinator
from tests.system.fleet import UNRELIABLE, Fleet, Library, Pause, Release

SOAK_S: Final = float(os.environ.get("SOAK_S", "30"))
SEED: Final = int(os.environ.get("SOAK_SEED", secrets.randbelow(1 << 32)))
COORDINATORS: Final = 2
AGENTS: Final = 6
CONVERGED_WITHIN_S: Final = 240.0
MORE_LOOKS_S: Final = 0.2
LOST: Final = (OSError, http.client.HTTPException)
BUSY: Final = (429, 503)
"""What a coordinator may answer when it, or its database, cannot do it now."""

pytestmark = [pytest.mark.long, pytest.mark.timeout(600 + 4 * SOAK_S)]


class Known:
    """What the answers say of one release; one caller at a time has it."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.recorded: bool | None = False
        """None: nobody can know, the last request was cut off."""
        self.busy = threading.Lock()


@dataclass
class Soak:
    """Everything that runs side by side.

    Attributes:
        diary: what was done, for a failure's message.
        broken: rules that were seen to be broken.
        looks: how often F2 was judged.
    """

    fleet: Fleet
    library: Library
    rng: random.Random
    stop: threading.Event = field(default_factory=threading.Event)
    diary: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    began_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.known = [Known(release) for release in self.library.releases]

    def note(self, what: str) -> None:
        self.diary.append(f"{time.monotonic() - self.began_s:7.2f} {what}")
        self.done[what.split()[0]] += 1

    def violate(self, rule: str) -> None:
        self.note(f"BROKEN {rule}")
        self.broken.append(rule)
        self.stop.set()

    # ---- uploads and deletions

    def use(self, coordinator: RunningCoordinator, rng: random.Random) -> None:
        """Upload and delete at random, as fast as it is answered."""
        while not self.stop.is_set():
            known = rng.choice(self.known)
            if not known.busy.acquire(blocking=False):
                continue
            try:
                if rng.random() < 0.6:
                    self._upload(coordinator, known)
                else:
                    self._delete(coordinator, known)
            finally:
                known.busy.release()
            self.stop.wait(rng.uniform(0, 0.3))

    def _upload(self, coordinator: RunningCoordinator, known: Known) -> None:
        version = known.release.version
        path = f"/v1/releases?file_name={version}.zip"
        answer = self._attempt(coordinator, "PUT", path, known.release.content)
        match answer and answer.status:
            case None:
                known.recorded = None
            case 200:
                assert answer is not None
                self._expect(known, {"inserted": False, "already_exists": True}, answer)
                known.recorded = True
            case status if status in BUSY:
                known.recorded = known.recorded or None
            case _:
                self.violate(f"upload of {version}: {answer}")

    def _expect(self, known: Known, before: dict[str, bool], answer: Answer) -> None:
        said = answer.body["status"]
        if known.recorded is not None and before[said] != known.recorded:
            self.violate(f"F5: {known.release.version} was recorded: {known.recorded}, now {said}")

    def _delete(self, coordinator: RunningCoordinator, known: Known) -> None:
        version = known.release.version
        answer = self._attempt(coordinator, "DELETE", f"/v1/releases/{version}", b"")
        match answer and answer.status:
            case None:
                known.recorded = None
            case 200 | 204:
                if known.recorded is False:
                    self.violate(f"{version} was deleted twice")
                known.recorded = False
            case 404:
                if known.recorded:
                    self.violate(f"F5: {version} was acknowledged and is not there")
                known.recorded = False
            case status if status in BUSY:
                known.recorded = None if known.recorded else known.recorded
            case _:
                self.violate(f"deletion of {version}: {answer}")

    def _attempt(
        self, coordinator: RunningCoordinator, method: str, path: str, body: bytes
    ) -> Answer | None:
        """Send a request; None when the connection was lost."""
        answer: Answer | None = None
        try:
            connection = connect(coordinator.url)
            try:
                connection.request(method, path, body=body)
                answer = read_answer(connection)
            finally:
                connection.close()
        except LOST:
            self.stop.wait(0.1)  # it is being started again
        result = "lost" if answer is None else str(answer.status)
        self.note(f"{method}-{result} {coordinator.home.name} {path}")
        return answer

    # ---- what goes wrong

    def harm_coordinators(self, rng: random.Random) -> None:
        """Pause a coordinator, kill one, cut both off from the database, in turn."""
        harms = itertools.cycle((self._pause_coordinator, self._kill_coordinator, self._cut))
        while not self.stop.wait(rng.uniform(0.5, 3)):
            next(harms)(rng.choice(self.fleet.coordinators), rng)

    def _pause_coordinator(self, coordinator: RunningCoordinator, rng: random.Random) -> None:
        self._pause(coordinator, rng.uniform(1.5, 5))

    def _kill_coordinator(self, coordinator: RunningCoordinator, _: random.Random) -> None:
        self.note(f"kill {coordinator.home.name}")
        coordinator.kill()
        coordinator.start()

    def _cut(self, _: RunningCoordinator, __: random.Random) -> None:
        self.note(f"cut {self.fleet.cut_connections()} connections to the database")

    def harm_agents(self, rng: random.Random) -> None:
        """Kill, pause and rob agents, and have consumers on them pin things."""
        harms = (self._rob, self._kill, self._pause_agent, self._pin, self._unpin)
        while not self.stop.wait(rng.uniform(0.2, 1.5)):
            harm = rng.choices(harms, (2, 2, 1, 2, 1))[0]
            harm(rng.choice(self.fleet.agents), rng)

    def _kill(self, agent: RunningAgent, rng: random.Random) -> None:
        self.note(f"kill {agent.home.name}")
        if rng.random() < 0.5:
            agent.kill()
        else:
            agent.stop()
        agent.start()

    def _pause_agent(self, agent: RunningAgent, rng: random.Random) -> None:
        self._pause(agent, rng.uniform(0.5, 3))

    def _pause(self, process: RunningAgent | RunningCoordinator, seconds: float) -> None:
        self.note(f"pause {process.home.name} {seconds:.1f}s")
        Pause(process).last(seconds, self.stop)

    def _rob(self, _: RunningAgent, rng: random.Random) -> None:
        agent = self.fleet.agents[rng.randrange(UNRELIABLE)]
        datasets = rng.choice((agent.datasets[:1], agent.datasets[1:], agent.datasets))
        state = len(datasets) == len(agent.datasets) and rng.random() < 0.5
        self.note(f"rob {agent.home.name} of {[path.name for path in datasets]}, state: {state}")
        self.fleet.lose(agent, datasets, state=state)

    def _pin(self, agent: RunningAgent, rng: random.Random) -> None:
        listed = ask(agent.agent_url, "/artifacts").body.get("list", {})
        if listed:
            body = {"artifacts": [rng.choice(sorted(listed))]}
            answer = ask(agent.agent_url, "/pins/consumer", "PUT", body)
            self.note(f"pin {agent.home.name} {answer.status} {body}")

    def _unpin(self, agent: RunningAgent, _: random.Random) -> None:
        answer = ask(agent.agent_url, "/pins/consumer", "DELETE")
        self.note(f"unpin {agent.home.name} {answer.status}")

    # ---- what is looked at meanwhile

    def watch(self) -> None:
        """Judge F2 again and again."""
        while not self.stop.wait(MORE_LOOKS_S):
            before = self.fleet.recorded()
            files = self.fleet.files()
            if self.fleet.recorded().generation == before.generation:
                self.looks += 1
                nowhere = before.wanted.difference(*files.values())
                if nowhere:
                    self.violate(f"F2: {_some(nowhere)} in generation {before.generation}")

    def run(self, seconds: float) -> None:
        """Have all of it happen for a while."""
        works: list[Callable[[], None]] = [self.watch]
        for coordinator in self.fleet.coordinators:
            works.append(self._seeded(self.use, coordinator))
        works.append(self._seeded(self.harm_coordinators))
        works.append(self._seeded(self.harm_agents))
        threads = [threading.Thread(target=self._guarded(work), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        self.stop.wait(seconds)
        self.stop.set()
        for thread in threads:
            thread.join()

    def _seeded(self, work: Callable[..., None], *arguments: object) -> Callable[[], None]:
        rng = random.Random(self.rng.random())
        return lambda: work(*arguments, rng)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # the root of a thread
                self.violate(f"{type(error).__name__}: {error}")

        return guarded

    # ---- what must be true in the end

    def judge(self) -> None:
        """Wait until the fleet is quiet, and look at all of it."""
        deadline_s = time.monotonic() + CONVERGED_WITHIN_S
        while problems := self._unsettled():
            assert time.monotonic() < deadline_s, f"F1: {problems}"
            self._wait_a_little()
        recorded = self.fleet.recorded()
        for known in self.known:
            version = known.release.version
            if known.recorded is not None:
                assert (version in recorded.releases) == known.recorded, f"F5: {version}"
        for agent in self.fleet.agents:
            for path in agent.datasets:
                assert not ondisk.wrong_bytes(path), f"B1: {path}"

    def _unsettled(self) -> list[str]:
        """Datasets that do not hold exactly what they should."""
        wanted = self.fleet.recorded().wanted
        problems = []
        for agent in self.fleet.agents:
            here = wanted | self.fleet.pinned(agent)
            for path in agent.datasets:
                found = frozenset(ondisk.artifact_files(path))
                if found != here:
                    said = f"lacks {_some(here - found)}, has still {_some(found - here)}"
                    problems.append(f"{path.parent.name}/{path.name} {said}")
        return problems

    def _wait_a_little(self) -> None:
        """Wait for the next event of some agent, at most for a second."""
        url = self.rng.choice(self.fleet.agents).agent_url
        latest = ask(url, "/status").body["events"]["latest"]
        ask(url, f"/events?after={latest}&wait_s=1")

    def story(self) -> str:
        """Everything that helps to understand a failure."""
        processes = (*self.fleet.coordinators, *self.fleet.agents)
        logs = [f"== {each.home}\n{each.log_tail(40)}" for each in processes]
        return "\n".join(
            [f"SOAK_SEED={SEED} SOAK_S={SOAK_S}", *self.broken, *self.diary[-200:], *logs]
        )


def _some(hashes: frozenset[str]) -> str:
    return f"{len(hashes)} {[sha256[:8] for sha256 in sorted(hashes)[:4]]}"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    try:
        with postgres.running() as server:
            url = asyncio.run(server.create())
            made = Fleet(tmp_path, url, coordinators=COORDINATORS, agents=AGENTS)
            try:
                yield made
            finally:
                made.close()
    except postgres.NoPostgres as error:
        lack(Need.POSTGRESQL, str(error))


def test_f1_f2_f5_a_fleet_survives_everything_and_converges(fleet: Fleet) -> None:
    rng = random.Random(SEED)
    library = Library(rng)
    fleet.start()
    soak = Soak(fleet, library, rng)
    added = ask_raw(fleet.coordinators[0].url, "POST", "/v1/trust-roots", library.root)
    assert added.status == 201, added
    try:
        soak.run(SOAK_S)
        assert not soak.broken
        soak.judge()
        for coordinator in fleet.coordinators:  # what a coordinator says of the fleet is true
            coordinator.run("wait", "--timeout", "40", "--coordinator", coordinator.url)
        assert soak.looks > 0
        assert min(soak.done[what] for what in ("PUT-200", "DELETE-204", "kill", "pause")) > 0
        for process in (*fleet.coordinators, *fleet.agents):
            assert process.stop() == 0, process.home
    except BaseException as error:
        error.add_note(soak.story())
        raise


def ask_raw(url: str, method: str, path: str, body: bytes) -> Answer:
    connection = connect(url)
    try:
        connection.request(method, path, body=body)
        return read_answer(connection)
    finally:
        connection.close()
