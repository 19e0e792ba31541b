"""What a web page that an operator looks at can make a browser do at a coordinator: nothing.

The rules themselves are tested in `tests.unit.test_http_browsers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from tests.coordinator.api.test_api import read
from tests.coordinator.running import client_of, coordinating

REQUESTS = [
    ("POST", "/v1/quiesce"),
    ("POST", "/v1/releases/prune"),
    ("POST", "/v1/replication/activate"),
    ("POST", "/v1/sleds/s1/reset"),
    ("DELETE", "/v1/releases/1.0.0"),
    ("GET", "/v1/replication"),
    ("POST", "/nothing"),
]
STRANGERS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://[evil"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
]
FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]


async def refusal(
    running: Coordinator, method: str, path: str, headers: Mapping[str, str], **options: Any
) -> tuple[int, str]:
    status, problem = await read(running.server.url + path, method, headers=headers, **options)
    return status, problem["error_code"]


async def test_a_request_from_somebody_elses_page_is_refused(running: Coordinator) -> None:
    for headers in STRANGERS:
        for method, path in REQUESTS:
            assert await refusal(running, method, path, headers) == (403, "CrossSite"), headers


async def test_a_refused_request_has_done_nothing(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await read(f"{running.server.url}/v1/quiesce", "POST", headers={"Origin": "http://evil"})
    assert not (await client.replication()).quiescing


async def test_a_page_of_the_coordinators_own_is_no_stranger(running: Coordinator) -> None:
    headers = {"Origin": running.server.url, "Sec-Fetch-Site": "same-origin"}
    status, _ = await read(f"{running.server.url}/v1/replication/activate", "POST", headers=headers)
    assert status == 202


async def test_a_link_from_elsewhere_may_be_followed(running: Coordinator) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    status, _ = await read(f"{running.server.url}/v1/replication", headers=headers)
    assert status == 200
    status, _ = await read(f"{running.server.url}/v1/quiesce", "POST", headers=headers)
    assert status == 403


async def test_a_name_that_was_rebound_to_the_coordinators_address_is_refused(
    running: Coordinator,
) -> None:
    for host in ("evil.example", "evil.example:12340", "", "127.0.0.1.evil", "a b"):
        for method, path in REQUESTS:
            found = await refusal(running, method, path, {"Host": host})
            assert found == (421, "UnknownHost"), host


async def test_names_of_the_configuration_are_the_coordinators(tmp_path: Path) -> None:
    async with coordinating(tmp_path, allowed_hosts=["fleet.example"]) as running:
        url = f"{running.server.url}/v1/generation"
        for host in ("fleet.example", "Fleet.Example.:80"):
            assert (await read(url, headers={"Host": host}))[0] == 200
        assert (await read(url, headers={"Host": "other.example"}))[0] == 421


async def test_a_form_can_post_nothing(running: Coordinator) -> None:
    for content_type in FORMS:
        for path in ("/v1/quiesce", "/v1/releases/prune", "/v1/sleds/s1/reset"):
            headers = {"Content-Type": content_type}
            found = await refusal(running, "POST", path, headers, data=b"{}")
            assert found == (400, "InvalidRequest")


async def test_commands_and_agents_say_nothing_of_a_page_and_are_served(tmp_path: Path) -> None:
    async with (
        coordinating(tmp_path, listen="localhost:0") as running,
        client_of(running) as client,
    ):
        assert await client.generation() >= 0
