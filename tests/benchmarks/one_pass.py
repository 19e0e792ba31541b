"""`python -m tests.benchmarks.one_pass SLEDS ARTIFACTS ROUNDS`: passes with nothing to do.

Everything of a pass is real but for the network: configs are rendered and lists are parsed as a
client of agents does it, and the database is a SQLite file, into which each pass writes how the
sleds fared and what it asked them. Prints the seconds of each pass, and the peak of memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import structlog

from agent.wire.artifacts import ArtifactListBody
from agent.wire.config import ArtifactConfigBody
from coordinator.database import counters, generation, releases, sleds
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.database.transaction import Transaction
from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.plan import plan
from coordinator.replication.records import DatabaseRecords
from coordinator.values import Release, ReleaseArtifact, ReleaseState, Sled
from depot.artifact import ArtifactConfig, Generation
from tests.coordinator.replication.sim_fleet import SimStaging, artifact
from tests.coordinator.replication.sim_sleds import Network, SimSled

KIB_PER_MIB = 1024


class WireSled(SimSled):
    """A sled that costs what its bodies cost."""

    def fill(self, config: ArtifactConfig) -> None:
        """Have it hold everything."""
        self.generation, self.config = config.generation, config.artifacts
        listed = {str(each): 2 for each in config.ordered}
        self._listing = json.dumps({"generation": int(config.generation), "list": listed}).encode()

    async def put_config(self, config: ArtifactConfig) -> None:
        body = await asyncio.to_thread(ArtifactConfigBody.of, config)
        assert body.model_dump_json()

    async def list_artifacts(self) -> ArtifactListBody:
        await asyncio.sleep(0)
        return ArtifactListBody.model_validate_json(self._listing)


async def passes(database: Database, sleds: int, artifacts: int, rounds: int) -> list[float]:
    """Have so many sleds hold so many artifacts, and say how many seconds each pass took."""
    network = Network()
    release = _release(artifacts)
    config = ArtifactConfig.make(
        await database.run(_record, sleds, release),
        [each.sha256 for each in release.artifacts],
    )
    made = {_id(number): WireSled(_id(number), network) for number in range(sleds)}
    for sled in made.values():
        sled.fill(config)

    def agent_of(sled: Sled) -> SimSled:
        return made[sled.id]

    times_s = []
    async with replication(
        records=DatabaseRecords(database, "here", KnownReleases()),
        staging=SimStaging("here", network),
        agent_of=agent_of,
        planner=plan,
        options=ReplicationOptions(),
        rng=random.Random(0),
    ) as cycle:
        for _ in range(rounds):
            began_s = time.perf_counter()
            await cycle.once()
            times_s.append(time.perf_counter() - began_s)
            inventory = cycle.reporting.current().inventory
            assert inventory is not None
            assert len(inventory.sleds) == sleds
            assert all(len(sled.held) == artifacts for sled in inventory.sleds)
    counted = await database.run(counters.read)
    requests = sleds * rounds
    assert counted == {"put_config_ok": requests, "list_ok": requests}, counted
    return times_s


def _release(artifacts: int) -> Release:
    return Release(
        version="1",
        sha256=artifact(-1),
        file_name="1.zip",
        time_created_s=0.0,
        allowed_expired=False,
        state=ReleaseState.COMPLETE,
        artifacts=tuple(
            ReleaseArtifact(f"artifact-{number}", "1", artifact(number), 1 << 20, kind="host")
            for number in range(artifacts)
        ),
    )


async def _record(tx: Transaction, count: int, release: Release) -> Generation:
    await releases.record(tx, release)
    for number in range(count):
        await sleds.upsert(tx, _id(number), f"http://{number}", f"http://{number}")
    return await generation.read(tx)


def _id(number: int) -> str:
    return f"sled-{number}"


async def _measure(sleds: int, artifacts: int, rounds: int) -> list[float]:
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite+aiosqlite:///{directory}/fleet.sqlite3"
        async with await Database.open(url) as database:
            return await passes(database, sleds, artifacts, rounds)


def main() -> None:
    """Print JSON."""
    sleds, artifacts, rounds = map(int, sys.argv[1:])
    # Each request is a line of the log: rendered, and then thrown away.
    with open("/dev/null", "w") as nowhere:
        structlog.configure(
            processors=[structlog.processors.JSONRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            logger_factory=structlog.PrintLoggerFactory(nowhere),
        )
        times_s = asyncio.run(_measure(sleds, artifacts, rounds))
    print(json.dumps({"times_s": times_s, "peak_mib": _peak_mib()}))


def _peak_mib() -> float:
    # Not getrusage's, which begins with that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    (peak_kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(peak_kib) / KIB_PER_MIB


if __name__ == "__main__":
    main()
