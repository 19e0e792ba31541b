"""A fleet of real processes for the soak: what is uploaded to it, done to it, and what it keeps.

The database is read with plain SQL and the disks with `tests.ondisk`: what is judged is never asked
how it fares.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from tests import ondisk
from tests.coordinator.releases.builder import ReleaseBuilder, zip_bytes
from tests.system.agents import RunningAgent
from tests.system.asking import ask
from tests.system.coordinators import RunningCoordinator
from tests.system.judging import names
from tests.system.programs import RunningProgram

KIB: Final = 1 << 10
SIZES_KIB: Final = (1, 20, 90, 700, 2500)
POOL: Final = 24
RELEASES: Final = 8
ARTIFACTS: Final = 6
_JUDGE: Final = "judge"
MIN_REPLICATION: Final = 3
UNRELIABLE: Final = MIN_REPLICATION - 1
"""Sleds that may lose whole disks: what has left the staging is on at least one other."""


@dataclass(frozen=True)
class Release:
    """A release that can be uploaded again and again."""

    version: str
    artifacts: frozenset[str]
    content: bytes


class Library:
    """Releases that share many of their artifacts; `root` verifies all of them."""

    def __init__(self, rng: random.Random) -> None:
        self._expires = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
        pool = [rng.randbytes(rng.choice(SIZES_KIB) * KIB) for _ in range(POOL)]
        self.root = b""
        self.releases = [
            self._release(f"1.0.{number}", {i: pool[i] for i in rng.sample(range(POOL), ARTIFACTS)})
            for number in range(RELEASES)
        ]

    def _release(self, version: str, chosen: Mapping[int, bytes]) -> Release:
        builder = ReleaseBuilder(expires=self._expires)
        listed = []
        for index, content in chosen.items():
            name = f"blob-{index}"
            builder.add(f"{name}.bin", content)
            listed.append({"name": name, "version": "1", "kind": "host", "target": f"{name}.bin"})
        builder.document(listed, version)
        self.root = self.root or builder.trusted
        return Release(
            version,
            frozenset(ondisk.sha256(content) for content in chosen.values()),
            zip_bytes(builder.publish()),
        )


@dataclass(frozen=True)
class Recorded:
    """What the database says in one transaction."""

    generation: int
    releases: frozenset[str]
    wanted: frozenset[str]


class Fleet:
    """Coordinators on one database, and agents that register with them.

    Attributes:
        agents: the first `UNRELIABLE` of them may lose their disks.
    """

    def __init__(self, home: Path, database_url: str, *, coordinators: int, agents: int) -> None:
        self._database_url = database_url
        env = {
            "DEPOT_COORDINATOR__REPLICATION__PERIOD_S": "1",
            "DEPOT_COORDINATOR__REPLICATION__MIN_SLED_REPLICATION": str(MIN_REPLICATION),
            "DEPOT_COORDINATOR__DRAIN_TIMEOUT_S": "5",
        }
        self.coordinators = [
            RunningCoordinator(home / f"coordinator-{n}", database_url=database_url, env=env)
            for n in range(coordinators)
        ]
        self.agents = [
            RunningAgent(home / f"sled-{n}", env=self._agent_env(n)) for n in range(agents)
        ]

    @staticmethod
    def _agent_env(number: int) -> dict[str, str]:
        return {
            "SLED_AGENT__SLED_ID": f"sled-{number}",
            "SLED_AGENT__STORAGE__DELETE_GRACE": "0s",
            "SLED_AGENT__STORAGE__QUOTA": "200MiB",
            "SLED_AGENT__STORAGE__DEVICE_WORKERS": "thread",
            "SLED_AGENT__STORAGE__RECONCILE_INTERVAL": "5s",
            "SLED_AGENT__DRAIN_TIMEOUT_S": "2",
        }

    def start(self) -> None:
        """Start everything; agents are told where the coordinators are."""
        _start_together(self.coordinators)
        urls = ",".join(coordinator.url for coordinator in self.coordinators)
        for agent in self.agents:
            agent.env["SLED_AGENT__COORDINATOR__URLS"] = urls
        _start_together(self.agents)

    def close(self) -> None:
        """End every process."""
        for each in (*self.coordinators, *self.agents):
            each.close()

    def recorded(self) -> Recorded:
        """Ask the database itself."""
        return asyncio.run(self._recorded())

    async def _recorded(self) -> Recorded:
        async with self._judging() as snapshot:
            generation = await snapshot.scalar(text("SELECT value FROM generation"))
            releases = await snapshot.scalars(text("SELECT version FROM releases"))
            wanted = await snapshot.scalars(text("SELECT sha256 FROM release_artifacts"))
            return Recorded(
                generation,
                frozenset(releases),
                frozenset(sha256.hex() for sha256 in wanted),
            )

    def cut_connections(self) -> int:
        """Break every connection that a coordinator has to the database; how many there were."""
        return asyncio.run(self._cut_connections())

    async def _cut_connections(self) -> int:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name <> :me"
        async with self._judging() as connection:
            theirs = f"{cut} AND datname = current_database()"
            return len((await connection.scalars(text(theirs), {"me": _JUDGE})).all())

    @asynccontextmanager
    async def _judging(self) -> AsyncIterator[AsyncConnection]:
        engine = create_async_engine(
            self._database_url,
            isolation_level="REPEATABLE READ",
            poolclass=NullPool,
            connect_args={"server_settings": {"application_name": _JUDGE}},
        )
        try:
            async with engine.connect() as connection:
                yield connection
        finally:
            await engine.dispose()

    def lose(self, agent: RunningAgent, datasets: Sequence[Path], *, state: bool) -> None:
        """Take the disks from a sled, and give it empty ones."""
        agent.kill()
        for path in datasets:
            shutil.rmtree(path)
        if state:
            shutil.rmtree(agent.home / "state")
        agent.prepare()
        agent.start()

    def files(self) -> dict[Path, frozenset[str]]:
        """What every directory holds; what leaves one on its way to another is in either."""
        staged = [coordinator.staged for coordinator in self.coordinators]
        stored = [path for agent in self.agents for path in agent.datasets]
        return {path: names(path) for path in (*staged, *stored)}

    def pinned(self, agent: RunningAgent) -> frozenset[str]:
        """What a local consumer holds on a sled."""
        pins = ask(agent.agent_url, "/pins").body["pins"].values()
        return frozenset(sha256 for pin in pins for sha256 in pin["artifacts"])


def _start_together(programs: Sequence[RunningProgram]) -> None:
    for program in programs:
        program.prepare().spawn()
    for program in programs:
        program.wait_ready()
