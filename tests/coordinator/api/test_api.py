from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from agent.openapi import DIRECTORY
from coordinator import errors, openapi
from coordinator.api.health import Health
from coordinator.api.problems import PROBLEMS
from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from coordinator.errors import DatabaseUnavailable
from depot.errors import DepotError

ENDPOINTS = {
    ("put", "/v1/releases"),
    ("post", "/v1/releases/import"),
    ("get", "/v1/releases"),
    ("get", "/v1/releases/{version}"),
    ("delete", "/v1/releases/{version}"),
    ("post", "/v1/trust-roots"),
    ("get", "/v1/trust-roots"),
    ("get", "/v1/trust-roots/{root_id}"),
    ("delete", "/v1/trust-roots/{root_id}"),
    ("get", "/v1/target-release"),
    ("put", "/v1/target-release"),
    ("get", "/v1/replication"),
    ("post", "/v1/replication/activate"),
    ("get", "/v1/replication/history"),
    ("get", "/v1/sleds"),
    ("get", "/v1/sleds/{sled_id}"),
    ("put", "/v1/sleds/{sled_id}"),
    ("put", "/v1/sleds/{sled_id}/policy"),
    ("post", "/v1/sleds/{sled_id}/reset"),
    ("get", "/v1/generation"),
    ("post", "/v1/generation/advance"),
    ("get", "/v1/uploads"),
    ("get", "/metrics"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/openapi.json"),
}


def leaves() -> Iterator[type[DepotError]]:
    for leaf in vars(errors).values():
        if isinstance(leaf, type) and issubclass(leaf, DepotError) and leaf is not DepotError:
            yield leaf


async def read(url: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, **options) as response,
    ):
        return response.status, await response.json()


def test_every_error_class_has_a_row() -> None:
    assert {leaf.__name__ for leaf in leaves() if leaf not in PROBLEMS} == set()


@pytest.mark.parametrize(("name", "text"), openapi.files().items())
def test_the_checked_in_document_is_what_the_server_says(name: str, text: str) -> None:
    assert (DIRECTORY / name).read_text() == text, "run `python -m coordinator.openapi`"


async def test_every_promised_endpoint_is_described(running: Coordinator) -> None:
    status, document = await read(f"{running.server.url}/openapi.json")
    described = {(verb, path) for path, verbs in document["paths"].items() for verb in verbs}
    assert status == 200
    assert described >= ENDPOINTS


async def test_a_coordinator_with_its_database_and_staging_is_ready(
    client: CoordinatorClient,
) -> None:
    assert (await client.ready()).status == "ok"


async def test_a_coordinator_without_its_database_is_not_ready(running: Coordinator) -> None:
    async def gone() -> None:
        raise DatabaseUnavailable("it is away")

    assert await Health(gone, running.staging).reasons_not_ready() == ["it is away"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NotFound"),
        ("DELETE", "/v1/generation", 405, "MethodNotAllowed"),
        ("GET", "/v1/generation?generatoin=1", 400, "InvalidRequest"),
    ],
)
async def test_refusals_have_the_error_body_of_the_agents(
    running: Coordinator, method: str, path: str, status: int, code: str
) -> None:
    found, body = await read(running.server.url + path, method)
    assert (found, body["error_code"]) == (status, code)
    assert set(body) <= {"request_id", "error_code", "message", "details"}


@pytest.mark.parametrize("body", ['{"to": "7"}', '{"to": true}', '{"to": 7, "x": 1}', "[]", "{"])
async def test_a_body_of_the_wrong_shape_is_refused_with_its_field(
    running: Coordinator, body: str
) -> None:
    url = f"{running.server.url}/v1/generation/advance"
    status, problem = await read(
        url, "POST", data=body, headers={"Content-Type": "application/json"}
    )
    assert (status, problem["error_code"]) == (400, "InvalidRequest")
