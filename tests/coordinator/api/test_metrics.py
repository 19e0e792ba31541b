from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from agent.loop_lag import BOUNDS_S, Lags
from coordinator.api.metrics import FleetMetrics
from coordinator.api.standing import Known, stand
from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from coordinator.errors import DatabaseUnavailable
from coordinator.replication_wire import ReplicationBody
from coordinator.values import Sled
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import small_release, zip_bytes


def read(text: str) -> Mapping[str, float]:
    return {
        sample.name.removeprefix("sled_depot_") + ",".join(sorted(sample.labels.values())): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(running: Coordinator) -> Mapping[str, float]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{running.server.url}/metrics") as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        return read(await response.text())


async def test_the_figures_are_those_of_the_status(
    running: Coordinator, client: CoordinatorClient
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    await client.upload_release(zip_bytes(builder.publish()), file_name="x.zip")
    await client.put_sled("s1", "http://127.0.0.1:9")
    await client.put_sled("s2", "http://127.0.0.1:10")
    await client.set_sled_policy("s2", "expunged")
    figures, status = await scrape(running), await client.replication()
    assert figures["fleet_generation"] == status.generation
    assert (figures["fleet_sledsnot_asked"], figures["fleet_sledsexpunged"]) == (1, 1)
    assert figures["fleet_sledsok"] == 0
    assert figures["fleet_releasescomplete"] == 1
    assert figures["fleet_artifactsmissing"] == status.artifacts.missing == 2
    assert figures["staging_artifacts"] == figures["staging_only_here"] == 2
    assert figures["staging_used_bytes"] == status.staging.used_bytes > 0
    assert figures["staging_quota_bytes"] == status.staging.quota_bytes
    assert (figures["database_up"], figures["uploads_running"]) == (1, 0)
    assert figures["uploads_moved_bytes_total"] > 0
    assert figures["http_requests_total200,PUT,coordinator,release_upload"] == 1
    assert "loop_lag_longest_seconds" in figures


async def test_requests_passes_and_failing_duties_are_counted(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await client.put_sled("s1", "http://127.0.0.1:9")
    running.duties.failed("prune", OSError("disk on fire"))
    await client.activate()
    while (await client.replication()).last_pass.ended is None:
        await client.history()
    figures = await scrape(running)
    assert figures["fleet_sledsunreachable"] == 1
    assert figures["fleet_requests_totalerror,put_config"] >= 1
    assert figures["passes_total"] >= 1
    assert figures["pass_duration_seconds"] >= 0
    assert figures["pass_ended_timestamp_seconds"] > 0
    assert figures["duty_failingprune"] == figures["duty_failures_totalprune"] == 1


async def test_without_the_database_there_are_the_figures_of_the_process(
    running: Coordinator,
) -> None:
    async def away() -> ReplicationBody:
        raise DatabaseUnavailable("it is away")

    lags = Lags((0,) * (len(BOUNDS_S) + 1), 0.0, 0.0)
    metrics = FleetMetrics(away, running.desk, running.duties, lambda: lags)
    figures = read((await metrics.render()).decode())
    assert figures["database_up"] == 0
    assert "uploads_running" in figures
    assert "fleet_generation" not in figures


def test_each_artifact_is_counted_once_and_in_one_state() -> None:
    names = [ArtifactHash.of(bytes([number])) for number in range(4)]
    wanted = dict.fromkeys(names, 1)
    sleds = (Sled("s1", "http://a", "http://d"),)
    known = Known(
        wanted=wanted,
        sleds=sleds,
        releases=(),
        target=None,
        came={"s1": frozenset(names[:1])},
        arriving={"s1": frozenset(names[1:2])},
        lost=frozenset(names[2:3]),
    )
    assert stand(known).artifacts.model_dump() == {
        "replicated": 1,
        "in_flight": 1,
        "missing": 1,
        "lost": 1,
    }
    nobody = Known(wanted=wanted, sleds=(), releases=(), target=None)
    assert stand(nobody).artifacts.missing == 4
