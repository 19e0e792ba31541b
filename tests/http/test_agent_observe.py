"""What shows how a sled is, and the endpoints for copies and pins."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.copies.record import CopyRecord
from depot import ArtifactHash, Generation
from depot.http.depot_api import depot_app, depot_endpoints
from depot.http.fast_path import FAST_PATH
from depot.http.hot_artifacts import HotArtifacts
from depot.http.pump import Pump
from depot.http.responder import ArtifactResponder
from depot.streams.sources import Pace
from tests.fakes import FakeStore
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.http.sled import (
    FakeCopies,
    Sled,
    dataset_paths,
    prepare_datasets,
    sled_with_store,
    take_away,
)

CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)
OTHER = ArtifactHash.of(b"another")
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    return tmp_path


@pytest.fixture
def copies() -> FakeCopies:
    return FakeCopies()


@pytest.fixture
async def sled(root: Path, copies: FakeCopies) -> AsyncIterator[Sled]:
    async with sled_with_store(root, copies=copies) as sled:
        yield sled


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    root = tmp_path / "depot"
    root.mkdir()
    return FakeStore(root)


# ---- status


async def test_the_status_has_every_field_of_the_contract(sled: Sled, root: Path) -> None:
    await sled.put_config(3, NAME, OTHER)
    await sled.put(CONTENT, 3)
    await sled.node.sample()
    status = (await sled.call("GET", "/status")).body
    assert status["sled_id"]
    assert status["version"] == "1.2.3"
    assert status["uptime_s"] >= 0
    assert (status["generation"], status["generation_certain"]) == (3, True)
    assert re.fullmatch("[0-9a-f]{64}", status["config_digest"])
    for path, dataset in zip(dataset_paths(root), status["datasets"], strict=True):
        assert (dataset["path"], dataset["state"], dataset["mounted"]) == (
            str(path),
            "healthy",
            True,
        )
        assert (dataset["used_bytes"], dataset["artifacts"]) == (len(CONTENT), 1)
        assert dataset["quota_bytes"] == 20 << 30
        assert dataset["available_bytes"] > 0
        assert {"device", "reserved_bytes", "last_error", "full", "dataset_id"} <= set(dataset)
    assert status["under_replicated"] == {"count": 0, "artifacts": []}
    assert status["copies"] == {"running": 0, "succeeded": 0, "failed": 0, "superseded": 0}
    assert status["node"]["memory_total_bytes"] > 0
    assert status["node"]["process"]["rss_bytes"] > 0
    assert status["node"]["process"]["open_files"] > 0
    assert RFC_3339.fullmatch(status["node"]["sampled_at"])
    assert status["events"]["persistent"]
    assert any("one device" in warning for warning in status["warnings"])


async def test_the_status_of_a_sled_without_datasets_says_why(tmp_path: Path) -> None:
    async with sled_with_store(tmp_path / "none") as sled:
        status = (await sled.call("GET", "/status")).body
        assert [dataset["state"] for dataset in status["datasets"]] == ["missing", "missing"]
        assert all(dataset["last_error"] for dataset in status["datasets"])
        assert status["node"] is None


async def test_copies_are_counted_by_state(sled: Sled, copies: FakeCopies) -> None:
    copies.records = (record("1"), record("2"), record("3", state="failed", error="no"))
    status = (await sled.call("GET", "/status")).body
    assert status["copies"] == {"running": 2, "succeeded": 0, "failed": 1, "superseded": 0}


async def test_a_duty_that_fails_is_in_status_events_and_metrics(sled: Sled) -> None:
    try:
        raise OSError("disk on fire")
    except OSError as error:
        sled.duties.failed("scrub", error)
    status = (await sled.call("GET", "/status")).body
    (duty,) = status["duties"]
    assert (duty["name"], duty["failing"], duty["failures"]) == ("scrub", True, 1)
    assert duty["last_error"] == "OSError: disk on fire"
    assert RFC_3339.fullmatch(duty["last_failed_at"])
    assert any("scrub keeps failing" in warning for warning in status["warnings"])
    (event,) = (await sled.call("GET", "/events?wait_s=30")).body["events"]
    assert (event["kind"], event["duty"]) == ("duty_failed", "scrub")
    figures = await scrape(sled)
    assert figures['sled_depot_duty_failures_total{duty="scrub"}'] == 1
    assert figures['sled_depot_duty_failing{duty="scrub"}'] == 1


# ---- events


async def test_events_are_listed_oldest_first_after_a_number(sled: Sled) -> None:
    for n in range(3):
        sled.events.emit("put", {"n": n})
    while sled.events.read(0, 1).latest < 3:
        await sled.events.wait(sled.events.read(0, 1).latest, 30)
    page = (await sled.call("GET", "/events")).body
    assert (page["oldest"], page["latest"], len(page["epoch"])) == (1, 3, 32)
    assert [(e["sequence"], e["kind"], e["n"]) for e in page["events"]] == [
        (1, "put", 0),
        (2, "put", 1),
        (3, "put", 2),
    ]
    assert all(RFC_3339.fullmatch(event["time"]) for event in page["events"])
    page = (await sled.call("GET", "/events?after=1&limit=1")).body
    assert [event["sequence"] for event in page["events"]] == [2]


async def test_a_field_cannot_pose_as_the_events_own(sled: Sled) -> None:
    sled.events.emit("put", {"sequence": 99, "kind": "deleted", "time": "never"})
    (event,) = (await sled.call("GET", "/events?wait_s=30")).body["events"]
    assert (event["sequence"], event["kind"]) == (1, "put")


async def test_a_reader_who_waits_gets_the_event_when_it_happens(sled: Sled) -> None:
    waiting = asyncio.ensure_future(sled.call("GET", "/events?wait_s=30"))
    assert (await sled.call("GET", "/events")).body["events"] == []
    sled.events.emit("put")
    assert [event["kind"] for event in (await waiting).body["events"]] == ["put"]


OUT_OF_BOUNDS = ["after=-1", "after=x", "after=", "after=1&after=2", "after=1.0", f"after={2**63}"]
OUT_OF_BOUNDS += ["after=%2B1", "limit=0", "limit=1001", "wait_s=31", "wait_s=0.5", "kind=put"]


@pytest.mark.parametrize("query", OUT_OF_BOUNDS)
async def test_a_query_out_of_bounds_is_refused_by_name(sled: Sled, query: str) -> None:
    reply = await sled.call("GET", f"/events?{query}")
    assert reply.code == "400 InvalidRequest"
    assert query.partition("=")[0] in reply.body["message"]


# ---- health


async def test_a_sled_without_a_config_is_ready(sled: Sled) -> None:
    for path in ("/health/live", "/health/ready"):
        reply = await sled.call("GET", path)
        assert (reply.status, reply.body) == (200, {"status": "ok", "reasons": []})


async def test_a_sled_without_a_dataset_is_alive_and_not_ready(tmp_path: Path) -> None:
    async with sled_with_store(tmp_path / "none") as sled:
        assert (await sled.call("GET", "/health/live")).code == "200"
        reply = await sled.call("GET", "/health/ready")
        assert reply.code == "503 NotReady"
        assert reply.body["details"]["reasons"][0] == "no healthy dataset"


async def test_a_sled_with_one_dataset_is_ready(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
    await take_away(root / "m2-b")
    async with sled_with_store(root) as sled:
        assert (await sled.call("GET", "/health/ready")).code == "200"


# ---- metrics


async def scrape(sled: Sled) -> dict[str, float]:
    """Every figure by its name and labels."""
    reply = await sled.call("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in text_string_to_metric_families(reply.content.decode())
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{k}="{v}"' for k, v in sorted(labels.items())) + "}" if labels else ""


async def test_the_figures_are_those_of_the_status(sled: Sled, root: Path) -> None:
    await sled.put_config(3, NAME)
    await sled.put(CONTENT, 3)
    await sled.node.sample()
    figures = await scrape(sled)
    assert figures["sled_depot_config_generation"] == 3
    assert figures["sled_depot_under_replicated_artifacts"] == 0
    assert figures["sled_depot_process_resident_memory_bytes"] > 0
    for path in dataset_paths(root):
        assert figures[f'sled_depot_dataset_healthy{{dataset="{path}"}}'] == 1
        assert figures[f'sled_depot_dataset_used_bytes{{dataset="{path}"}}'] == len(CONTENT)


async def test_requests_are_counted_by_operation_and_status(sled: Sled) -> None:
    await sled.call("GET", "/artifacts")
    await sled.call("HEAD", "/status")
    await sled.call("GET", "/nowhere")
    await sled.call("GET", f"/artifacts/{NAME}")
    figures = await scrape(sled)

    def count(operation: str, method: str, status: int) -> float:
        labels = {"server": "agent", "operation": operation, "method": method}
        return figures[
            "sled_depot_http_requests_total" + _labels({**labels, "status": str(status)})
        ]

    assert count("artifact_list", "GET", 400) == 1
    assert count("status_get", "HEAD", 200) == 1
    assert count("other", "GET", 404) == 1
    assert count("artifact_get", "GET", 404) == 1
    assert not [name for name in figures if str(NAME) in name], "a path became a label"


async def test_what_the_depot_answers_at_once_is_counted_like_everything_else(
    sled: Sled, store: FakeStore
) -> None:
    small = get_line(await store.add(CONTENT))
    apps = {"fast": depot_app(store, hot=HotArtifacts()), "plain": depot_app(store)}
    for name, app in apps.items():
        sled.metrics.watch(app, name, depot_endpoints(ArtifactResponder(store, Pump(), Pace())))
        async with serve(app) as service, RawClient.connect(service.url) as client:
            for line, *headers in ([small], [small], [small, "Range: bytes=1-2"], [small]):
                await client.send(line, *headers)
                assert (await client.answer()).status in (200, 206)
    assert apps["fast"][FAST_PATH].answers == 2
    figures = await scrape(sled)
    assert _of_server(figures, "fast") == _of_server(figures, "plain")


def get_line(artifact: ArtifactHash) -> str:
    return f"GET /artifact/sha256/{artifact} HTTP/1.1"


def _of_server(figures: dict[str, float], server: str) -> dict[str, float]:
    label = f'server="{server}"'
    found = {key.replace(label, ""): figures[key] for key in figures if label in key}
    assert found
    return found


async def test_body_bytes_are_counted_by_operation(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    await sled.put(CONTENT)
    figures = await scrape(sled)
    labels = '{operation="artifact_put",server="agent"}'
    assert figures[f"sled_depot_http_request_body_bytes_total{labels}"] == len(CONTENT)
    assert figures[f"sled_depot_http_response_body_bytes_total{labels}"] > 0


# ---- copies


def record(copy_id: str, **changes: object) -> CopyRecord:
    fields: dict[str, object] = {
        "copy_id": copy_id,
        "sha256": NAME,
        "generation": Generation(1),
        "sources": ("http://a:1", "http://b:2"),
        "state": "running",
        "bytes_done": 5,
        "bytes_total": 19,
        "started_at": 1_700_000_000.0,
    }
    return CopyRecord(**{**fields, **changes})  # type: ignore[arg-type]  # a dict has one type


async def test_a_copy_is_started_with_all_its_sources(sled: Sled, copies: FakeCopies) -> None:
    body = {"depot_base_url": "http://a:1", "depot_base_urls": ["http://b:2", "http://a:1"]}
    path = f"/artifacts/{str(NAME).upper()}/copy-from-depot?generation=7"
    reply = await sled.call("POST", path, body)
    assert (reply.status, reply.body) == (202, {"copy_id": "copy-1"})
    assert copies.started == [(NAME, Generation(7), ("http://a:1", "http://b:2"))]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "depot_base_url"),
        ({"depot_base_url": 1}, "depot_base_url"),
        ({"depot_base_url": None}, "depot_base_url"),
        ({"depot_base_url": "http://a", "depot_base_urls": "http://b"}, "depot_base_urls"),
        ({"depot_base_url": "http://a", "depot_base_urls": [1]}, "depot_base_urls.0"),
        ({"depot_base_url": "http://a", "url": "http://b"}, "url"),
    ],
)
async def test_a_copy_of_the_wrong_shape_is_refused_with_the_field_named(
    sled: Sled, copies: FakeCopies, body: object, field: str
) -> None:
    path = f"/artifacts/{NAME}/copy-from-depot?generation=1"
    reply = await sled.call("POST", path, body)
    assert reply.code == "400 InvalidRequest"
    assert reply.body["message"].startswith(f"{field}: ")
    assert not copies.started


async def test_copies_are_listed_with_every_field_of_the_contract(
    sled: Sled, copies: FakeCopies
) -> None:
    done = {"finished_at": 1_700_000_001.5, "datasets": 2, "successful_writes": 1}
    copies.records = (
        record("1"),
        record("2", state="succeeded", bytes_done=19, **done),
        record("3", state="failed", error="http://a:1 answered 404", bytes_total=None),
    )
    listed = (await sled.call("GET", "/copies")).body["copies"]
    assert [copy["copy_id"] for copy in listed] == ["1", "2", "3"]
    assert listed[1] == {
        "copy_id": "2",
        "sha256": str(NAME),
        "generation": 1,
        "sources": ["http://a:1", "http://b:2"],
        "state": "succeeded",
        "bytes_done": 19,
        "bytes_total": 19,
        "started_at": "2023-11-14T22:13:20Z",
        "finished_at": "2023-11-14T22:13:21.500000Z",
        "error": None,
        "datasets": 2,
        "successful_writes": 1,
    }
    assert listed[2]["error"] == "http://a:1 answered 404"
    assert (await sled.call("GET", "/copies/1")).body == listed[0]
    assert (await sled.call("GET", "/copies/4")).code == "404 NotFound"


# ---- pins


async def test_a_pin_is_put_got_listed_replaced_and_deleted(sled: Sled) -> None:
    await sled.put_config(1, NAME, OTHER)
    upper = {"artifacts": [str(NAME).upper()]}
    assert (await sled.call("PUT", "/pins/b", upper)).code == "204"
    assert (await sled.call("PUT", "/pins/a", {"artifacts": [str(NAME)]})).code == "204"
    both = {"artifacts": sorted([str(NAME), str(OTHER)])}
    assert (await sled.call("PUT", "/pins/a", both)).code == "204"
    assert (await sled.call("GET", "/pins/a")).body == both
    listed = (await sled.call("GET", "/pins")).body
    assert listed == {"pins": {"a": both, "b": {"artifacts": [str(NAME)]}}}
    assert (await sled.call("DELETE", "/pins/a")).code == "204"
    for method in ("GET", "DELETE"):
        assert (await sled.call(method, "/pins/a")).code == "404 NotFound"


async def test_a_pin_survives_a_restart(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
        await sled.call("PUT", "/pins/vm", {"artifacts": [str(NAME)]})
    async with sled_with_store(root) as sled:
        assert (await sled.call("GET", "/pins/vm")).body == {"artifacts": [str(NAME)]}


async def test_a_pin_outside_the_config_is_refused(sled: Sled) -> None:
    pin = {"artifacts": [str(NAME)]}
    assert (await sled.call("PUT", "/pins/vm", pin)).code == "400 NoConfig"
    await sled.put_config(1, OTHER)
    assert (await sled.call("PUT", "/pins/vm", pin)).code == "400 NotInConfig"
    assert (await sled.call("GET", "/pins")).body == {"pins": {}}


@pytest.mark.parametrize("name", ["%20", "a%2fb", "..%2fx", "-a", ".a", "a" * 129, "%00", "%C3%A4"])
async def test_a_pin_has_a_name_of_letters_digits_dots_and_dashes(sled: Sled, name: str) -> None:
    await sled.put_config(1, NAME)
    reply = await sled.call("PUT", f"/pins/{name}", {"artifacts": []})
    assert reply.code == "400 InvalidRequest"
