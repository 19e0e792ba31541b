"""A fleet that is mistreated for a while: F1, F2 and F5 are read from its disks and its database.

Rules kept here:

- Two coordinators on one PostgreSQL, six agents, all of them real processes. Both coordinators are
  given uploads and deletions of releases that share artifacts, while coordinators and agents are
  killed, paused for longer than a pass, cut off from the database, and sleds lose their disks.
- What is done is drawn from one seed, which is part of every failure's message:
  `SOAK_SEED=… SOAK_S=… pytest tests/system/test_fleet_soak.py` draws the same again, as far as the
  processes let it.
- Everything must have happened, and be counted: it goes on for longer where the machine is slow.
- F2 is looked at all the time: while the database wants an artifact, some directory has its file.
- After quiet, every dataset of every sled has exactly what is wanted there (F1), and the database
  what was acknowledged last (F5).
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.coordinator import postgres
from tests.needs import Need, lack
from tests.system.asking import ask
from tests.system.fleet import Fleet, Library
from tests.system.fleet_harms import Harms
from tests.system.fleet_users import Users, ask_raw
from tests.system.journal import Journal
from tests.system.judging import astray, damaged, nowhere, some
from tests.system.tally import Kind, Tally

SOAK_S: Final = float(os.environ.get("SOAK_S", "30"))
SEED: Final = int(os.environ.get("SOAK_SEED", secrets.randbelow(1 << 32)))
AT_LEAST: Final = 1 + int(SOAK_S // 60)
"""How often everything must have happened."""
COORDINATORS: Final = 2
AGENTS: Final = 6
MORE_S: Final = 240.0
"""How much longer it may take until everything has happened."""
CONVERGED_WITHIN_S: Final = 240.0
MORE_LOOKS_S: Final = 0.2

pytestmark = [pytest.mark.long, pytest.mark.timeout(600 + 4 * SOAK_S)]


class Soak:
    """Everything that runs side by side."""

    def __init__(self, fleet: Fleet, library: Library, rng: random.Random) -> None:
        names = [coordinator.home.name for coordinator in fleet.coordinators]
        self.journal = Journal(Tally(names, AT_LEAST))
        self._fleet = fleet
        self._rng = rng
        self._users = Users(library, self.journal)
        self._harms = Harms(fleet, self.journal)

    def run(self, seconds: float) -> None:
        """Have all of it happen for so long, and until everything has happened."""
        works: list[Callable[[], None]] = [self._watch]
        for coordinator in self._fleet.coordinators:
            works.append(self._seeded(self._users.use, coordinator))
        works.append(self._seeded(self._harms.to_coordinators))
        works.append(self._seeded(self._harms.to_sleds))
        threads = [threading.Thread(target=self._guarded(work), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        stop, end_s = self.journal.stop, time.monotonic() + seconds + MORE_S
        stop.wait(seconds)
        while self.journal.tally.lacking() and not stop.wait(1) and time.monotonic() < end_s:
            pass
        stop.set()
        for thread in threads:
            thread.join()

    def _seeded(self, work: Callable[..., None], *arguments: object) -> Callable[[], None]:
        rng = random.Random(self._rng.random())
        return lambda: work(*arguments, rng)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # the root of a thread
                self.journal.violate(f"{type(error).__name__}: {error}")

        return guarded

    def _watch(self) -> None:
        """Judge F2 again and again; what changed meanwhile cannot be judged."""
        while not self.journal.stop.wait(MORE_LOOKS_S):
            before = self._fleet.recorded()
            files = self._fleet.files()
            if self._fleet.recorded().generation != before.generation:
                continue
            self.journal.tally.add(Kind.LOOKED)
            if lost := nowhere(before.wanted, files.values()):
                self.journal.violate(f"F2: {some(lost)} in generation {before.generation}")

    # ---- what must be true in the end

    def judge(self) -> None:
        """Have something to hold, wait until the fleet is quiet, and look at all of it."""
        coordinator, known = self._fleet.coordinators[0], self._users.known[0]
        deadline_s = time.monotonic() + CONVERGED_WITHIN_S
        while not known.recorded:
            self._users.upload(coordinator, known)
            assert time.monotonic() < deadline_s, "F5: nothing can be uploaded"
        while problems := astray(self._expected()):
            assert time.monotonic() < deadline_s, f"F1: {problems}"
            self._wait_a_little()
        recorded = self._fleet.recorded()
        assert known.release.artifacts <= recorded.wanted
        assert not nowhere(recorded.wanted, self._fleet.files().values()), "F2"
        for known in self._users.known:
            if known.recorded is not None:
                assert (known.version in recorded.releases) == known.recorded, (
                    f"F5: {known.version}"
                )
        assert not damaged(self._expected()), "B1"

    def _expected(self) -> dict[Path, frozenset[str]]:
        """What each dataset should hold: what is wanted, and what is pinned there."""
        wanted = self._fleet.recorded().wanted
        return {
            path: here
            for agent in self._fleet.agents
            for here in [wanted | self._fleet.pinned(agent)]
            for path in agent.datasets
        }

    def _wait_a_little(self) -> None:
        """Wait for the next event of some agent, at most for a second."""
        url = self._rng.choice(self._fleet.agents).agent_url
        latest = ask(url, "/status").body["events"]["latest"]
        ask(url, f"/events?after={latest}&wait_s=1")

    def story(self) -> str:
        """Everything that helps to understand a failure."""
        processes = (*self._fleet.coordinators, *self._fleet.agents)
        logs = [f"== {each.home}\n{each.log_tail(40)}" for each in processes]
        journal = self.journal
        return "\n".join([figures(self), *journal.broken, *journal.diary[-200:], *logs])


def figures(soak: Soak) -> str:
    return f"SOAK_SEED={SEED} SOAK_S={SOAK_S:g}: {soak.journal.tally}"


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


def test_f1_f2_f5_a_fleet_survives_everything_and_converges(
    fleet: Fleet, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(SEED)
    library = Library(rng)
    fleet.start()
    soak = Soak(fleet, library, rng)
    added = ask_raw(fleet.coordinators[0].url, "POST", "/v1/trust-roots", library.root)
    assert added.status == 201, added
    try:
        soak.run(SOAK_S)
        assert not soak.journal.broken
        soak.judge()
        assert not soak.journal.broken
        for coordinator in fleet.coordinators:  # what a coordinator says of the fleet is true
            coordinator.run("wait", "--timeout", "40", "--coordinator", coordinator.url)
        for process in (*fleet.coordinators, *fleet.agents):
            assert process.stop() == 0, process.home
        # Last: what did happen is judged also where a slow machine left too little time for more.
        assert not soak.journal.tally.lacking(), "not everything happened"
    except BaseException as error:
        error.add_note(soak.story())
        raise
    record_property("said", figures(soak))
