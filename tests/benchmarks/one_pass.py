"""`python -m tests.benchmarks.one_pass SLEDS ARTIFACTS ROUNDS`: passes with nothing to do.

Everything of a pass is real but for the network and the database: configs are rendered and lists
are parsed as a client of agents does it. Prints the seconds of each pass, and the peak of memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import resource
import sys
import time
from collections.abc import Mapping, Sequence

import structlog

from agent.wire import ArtifactConfigBody, ArtifactListBody
from coordinator.replication.compose import ReplicationOptions, replication
from coordinator.replication.plan import plan
from coordinator.values import RequestRecord, Sled
from depot.artifact import ArtifactConfig
from tests.coordinator.replication.sim_fleet import SimDatabase, SimRecords, SimStaging, artifact
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


class Forgetful(SimRecords):
    """A database that costs nothing."""

    async def write_requests(
        self, requests: Sequence[RequestRecord], counts: Mapping[str, int]
    ) -> None:
        assert counts.keys() == {"put_config_ok", "list_ok"}, counts


async def passes(sleds: int, artifacts: int, rounds: int) -> list[float]:
    network = Network()
    database = SimDatabase(network)
    wanted = [artifact(number) for number in range(artifacts)]
    network.sizes.update(dict.fromkeys(wanted, 1 << 20))
    database.add_release("1", wanted)
    made = {f"sled-{number}": WireSled(f"sled-{number}", network) for number in range(sleds)}
    network.sleds.update(made)
    config = ArtifactConfig.make(database.generation, wanted)
    for sled in made.values():
        sled.fill(config)

    def agent_of(sled: Sled) -> SimSled:
        return made[sled.id]

    times_s = []
    async with replication(
        records=Forgetful(database, "here"),
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
            assert all(len(sled.held) == artifacts for sled in inventory.sleds)
    return times_s


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
        times_s = asyncio.run(passes(sleds, artifacts, rounds))
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_MIB
    print(json.dumps({"times_s": times_s, "peak_mib": peak_mib}))


if __name__ == "__main__":
    main()
