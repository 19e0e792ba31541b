"""What holds for every endpoint of the agent API: refusals, their order and their shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from http import HTTPStatus
from pathlib import Path

import pytest

from agent.openapi import agent_table
from depot import ArtifactHash, Generation
from depot.errors import (
    ArtifactGeneration,
    ArtifactInUse,
    BadSource,
    BodyTimeout,
    ConfigGeneration,
    DatasetRefused,
    DepotCopy,
    DepotError,
    HashMismatch,
    Io,
    LedgerUnknown,
    LengthMismatch,
    NoConfig,
    NoDataset,
    NotFound,
    NotInConfig,
    QuotaExceeded,
    TooFewCopies,
    TooLarge,
    TooManyCopies,
    TooManyPuts,
)
from depot.http.openapi import Endpoint
from tests.http.sled import (
    FakeCopies,
    RefusingStore,
    Sled,
    agent_api,
    prepare_datasets,
    sled_with_store,
)

CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)
ONE, TWO = Generation(1), Generation(2)

REQUESTS: Mapping[str, object] = {
    "artifact_config_put": {"generation": 1, "artifacts": []},
    "artifact_config_reset": {"expected_generation": 1},
    "artifact_copy_from_depot": {"depot_base_url": "http://127.0.0.1:1"},
    "pin_put": {"artifacts": []},
    "dataset_release": {"path": "/m2/b"},
    "dataset_attach": {"path": "/m2/b"},
    "dataset_replace": {"path": "/m2/b"},
}
WITHOUT_DATASET = {"copy_list", "copy_get", "status_get", "event_list"}
WITHOUT_DATASET |= {"health_live", "metrics_get", "scrub_get", "scrub_pause", "scrub_resume"}
WITHOUT_DATASET |= {"dataset_list", "dataset_release", "dataset_attach", "dataset_replace"}
WITHOUT_DATASET |= {"checkpoint_list", "checkpoint_put"}


def path_of(endpoint: Endpoint) -> str:
    """The endpoint's path with valid parameters filled in."""
    path = (
        endpoint.path.format(sha256=NAME, name="vm", copy_id="1", id="1")
        if "{" in endpoint.path
        else endpoint.path
    )
    needs_generation = any(each.name == "generation" for each in endpoint.parameters)
    return path + "?generation=1" * needs_generation


def each_endpoint(*, without: Collection[str] = ()) -> list[Endpoint]:
    return [endpoint for endpoint in agent_table() if endpoint.operation_id not in without]


def by_id(endpoint: Endpoint) -> str:
    return endpoint.operation_id


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    return tmp_path


@pytest.fixture
async def sled(root: Path) -> AsyncIterator[Sled]:
    async with sled_with_store(root) as sled:
        yield sled


# ---- every endpoint


@pytest.mark.parametrize("endpoint", each_endpoint(without=WITHOUT_DATASET), ids=by_id)
async def test_without_a_dataset_every_verb_that_needs_one_says_so_first(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    """First means: before the body is looked at, which here is none of any shape."""
    async with sled_with_store(tmp_path / "none") as sled:
        reply = await sled.call(endpoint.method, path_of(endpoint), data=b"{")
        ready = endpoint.operation_id == "health_ready"
        assert reply.code == ("503 NotReady" if ready else "503 NoDataset")
        assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("endpoint", each_endpoint(), ids=by_id)
async def test_a_query_parameter_that_is_not_documented_is_refused(
    sled: Sled, endpoint: Endpoint
) -> None:
    path = path_of(endpoint)
    reply = await sled.call(endpoint.method, f"{path}{'&' if '?' in path else '?'}generatoin=1")
    assert reply.code == "400 InvalidRequest"
    assert "'generatoin'" in reply.body["message"]


@pytest.mark.parametrize("path", sorted({path_of(endpoint) for endpoint in agent_table()}))
async def test_a_method_that_a_path_does_not_have_is_refused(sled: Sled, path: str) -> None:
    for method in ("PATCH", "TRACE"):
        reply = await sled.call(method, path)
        assert reply.code == "405 MethodNotAllowed"
        assert reply.headers["Allow"]


@pytest.mark.parametrize(
    "path", ["/", "/artifact", "/artifacts/", f"/artifacts/{NAME}/copy", "/v1/artifacts", "/scrubs"]
)
async def test_an_unknown_path_is_refused(sled: Sled, path: str) -> None:
    for method in ("GET", "PUT", "POST"):
        assert (await sled.call(method, path)).code == "404 NotFound"


@pytest.mark.parametrize("version", ["0.9.9", "48.0.1", "49.0.0", "1", "1.0", "x", "1.0.0.0", ""])
@pytest.mark.parametrize("endpoint", each_endpoint()[:3], ids=by_id)
async def test_a_version_out_of_range_is_refused(
    sled: Sled, endpoint: Endpoint, version: str
) -> None:
    headers = {"api-version": version}
    reply = await sled.call(endpoint.method, path_of(endpoint), headers=headers)
    assert reply.code == "400 ApiVersion"


@pytest.mark.parametrize("version", ["1.0.0", "12.3.4", "48.0.0"])
async def test_a_version_in_range_is_served(sled: Sled, version: str) -> None:
    reply = await sled.call("GET", "/status", headers={"api-version": version})
    assert reply.code == "200"


async def test_head_answers_like_get_without_a_body(sled: Sled) -> None:
    reply = await sled.call("HEAD", "/status")
    assert (reply.status, reply.content) == (200, b"")


@pytest.mark.parametrize("endpoint", each_endpoint(), ids=by_id)
async def test_two_requests_have_two_ids(sled: Sled, endpoint: Endpoint) -> None:
    replies = [await sled.call(endpoint.method, path_of(endpoint)) for _ in range(2)]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 2


# ---- each refusal of a verb

OLD = ConfigGeneration("older", ONE, TWO)
REFUSALS = [
    ("artifact_config_get", LedgerUnknown("away"), 503),
    ("artifact_config_put", OLD, 409),
    ("artifact_config_put", ArtifactInUse([NAME]), 400),
    ("artifact_config_put", LedgerUnknown("away"), 503),
    ("artifact_config_put", QuotaExceeded("full"), 507),
    ("artifact_config_put", Io("no dataset took it"), 500),
    ("artifact_config_reset", OLD, 409),
    ("artifact_config_reset", NoConfig(), 400),
    ("artifact_list", NoConfig(), 400),
    ("artifact_list", LedgerUnknown("away"), 503),
    ("artifact_put", NoConfig(), 400),
    ("artifact_put", ArtifactGeneration("moved on", ONE, TWO), 409),
    ("artifact_put", LedgerUnknown("away"), 503),
    ("artifact_put", NotInConfig("not wanted"), 400),
    ("artifact_put", TooLarge("too large"), 413),
    ("artifact_put", QuotaExceeded("full"), 507),
    ("artifact_put", TooManyPuts("many"), 429),
    ("pin_put", NotInConfig("not wanted"), 400),
    ("pin_put", NoConfig(), 400),
    ("pin_put", Io("no dataset took it"), 500),
    ("dataset_release", DatasetRefused("the last one"), 409),
    ("dataset_release", NotFound("no such path"), 404),
    ("dataset_attach", DatasetRefused("not there"), 409),
    ("dataset_replace", DatasetRefused("not empty"), 409),
    ("dataset_replace", NoDataset("nothing to mirror from"), 503),
]
IN_BODY = [
    (HashMismatch(NAME, ArtifactHash.of(b"")), 400),
    (LengthMismatch(5, 3), 400),
    (BodyTimeout("silent"), 408),
    (TooFewCopies("one"), 503),
    (Io("no dataset took it"), 500),
    (QuotaExceeded("full"), 507),
    (TooLarge("too large"), 413),
    (ArtifactGeneration("moved on", ONE, TWO), 409),
]
OF_COPIES = [
    (NoConfig(), 400),
    (ArtifactGeneration("moved on", ONE, TWO), 409),
    (NotInConfig("not wanted"), 400),
    (BadSource("not allowed"), 400),
    (TooManyCopies("many"), 429),
    (DepotCopy("no such artifact there"), 502),
    (TooLarge("too large"), 413),
    (QuotaExceeded("full"), 507),
]


async def check_refusal(sled: Sled, operation: str, error: DepotError, status: int) -> None:
    (endpoint,) = (each for each in agent_table() if each.operation_id == operation)
    body = REQUESTS.get(operation)
    data = CONTENT if operation == "artifact_put" else None
    reply = await sled.call(endpoint.method, path_of(endpoint), body, data=data)
    assert reply.code == f"{status} {error.code}"
    assert reply.body["message"] == str(error)
    assert reply.body.get("details", {}) == error.details()
    assert ("Retry-After" in reply.headers) == (error.retry_after_s is not None)
    HTTPStatus(status)


@pytest.mark.parametrize(("operation", "error", "status"), REFUSALS)
async def test_what_the_store_refuses_is_told_with_its_code_and_details(
    tmp_path: Path, operation: str, error: DepotError, status: int
) -> None:
    async with agent_api(RefusingStore(error), tmp_path) as sled:
        await check_refusal(sled, operation, error, status)


@pytest.mark.parametrize(("error", "status"), IN_BODY)
async def test_what_is_found_in_the_body_of_a_put_is_told(
    tmp_path: Path, error: DepotError, status: int
) -> None:
    async with agent_api(RefusingStore(error, in_body=True), tmp_path) as sled:
        await check_refusal(sled, "artifact_put", error, status)


@pytest.mark.parametrize(("error", "status"), OF_COPIES)
async def test_what_the_copies_refuse_is_told(
    tmp_path: Path, error: DepotError, status: int
) -> None:
    copies = FakeCopies(refusal=error)
    store = RefusingStore(NoConfig())
    async with agent_api(store, tmp_path, copies=copies) as sled:
        await check_refusal(sled, "artifact_copy_from_depot", error, status)
