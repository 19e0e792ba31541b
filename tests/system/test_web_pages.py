"""What web pages can do at a running agent: nothing, at either port. Nobody else is held up.

The rules themselves are tested in `tests.unit.test_http_browsers`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.system.agents import RunningAgent
from tests.system.asking import ask, connect, put_config, read_answer

CONTENT: Final = b"an artifact's bytes"
NAME: Final = hashlib.sha256(CONTENT).hexdigest()
PUT: Final = f"/artifacts/{NAME}?generation=1"
GET: Final = f"/artifact/sha256/{NAME}"
CROSS_SITE: Final = (403, "CrossSite")
UNKNOWN_HOST: Final = (421, "UnknownHost")
SERVED: Final = (200, None)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    """One that nobody told its names."""
    with RunningAgent(tmp_path_factory.mktemp("unnamed")) as agent:
        assert put_config(agent, 1, NAME).status == 204
        yield agent


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    env = {
        "SLED_AGENT__ALLOWED_HOSTS": "sled-7.example",
        "SLED_AGENT__DEPOT__ADVERTISE_URL": "http://depot-7.example:12348",
    }
    with RunningAgent(tmp_path_factory.mktemp("named"), env=env) as agent:
        assert put_config(agent, 1, NAME).status == 204
        yield agent


def say(
    url: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> tuple[int, str | None]:
    """The status and the error code of the answer to a request with these headers."""
    connection = connect(url)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = read_answer(connection)
        return answer.status, answer.error_code
    finally:
        connection.close()


def rebound(url: str) -> dict[str, str]:
    """What a browser says for the page of a name that was made to lead to `url`."""
    place = f"evil.example:{urlsplit(url).port}"
    return {"Host": place, "Origin": f"http://{place}"}


CHANGES: Final = [
    ("PUT", PUT, CONTENT),
    ("PUT", "/artifacts-config", b'{"generation": 2, "artifacts": []}'),
    ("POST", "/artifacts-config/reset", b'{"expected_generation": 1}'),
    ("POST", "/scrub", None),
    ("PUT", "/pins/page", b'{"artifacts": []}'),
    ("DELETE", "/pins/page", None),
]


@pytest.mark.parametrize("which", ["agent", "named"])
def test_s4_a_page_cannot_change_what_a_sled_holds(
    which: str, request: pytest.FixtureRequest
) -> None:
    agent: RunningAgent = request.getfixturevalue(which)
    url = agent.agent_url
    for method, path, body in CHANGES:
        for page in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert say(url, method, path, page, body) == CROSS_SITE, (path, page)
        assert say(url, method, path, rebound(url), body) == UNKNOWN_HOST, path
    assert say(agent.depot_url, "GET", GET, {"Origin": "null"}) == CROSS_SITE
    assert say(agent.depot_url, "GET", GET, rebound(agent.depot_url)) == UNKNOWN_HOST
    assert ask(url, "/artifacts-config").body["generation"] == 1
    assert ask(url, "/pins").body["pins"] == {}


def test_a_sled_serves_programs_under_any_name_that_operators_gave_it(agent: RunningAgent) -> None:
    for host in ("sled-7", "sled-7.example:12345", "[fd00::7]:12345", "proxy.example"):
        assert say(agent.agent_url, "PUT", PUT, {"Host": host}, CONTENT) == SERVED
        assert say(agent.agent_url, "GET", "/status", {"Host": host}) == SERVED
        assert say(agent.depot_url, "GET", GET, {"Host": host}) == SERVED


def test_a_sled_that_was_told_its_names_is_called_by_no_other(named: RunningAgent) -> None:
    names = ("sled-7.example:1", "depot-7.example", "10.0.0.7", "[fd00::7]:1", "localhost:1")
    for host in names:
        assert say(named.agent_url, "PUT", PUT, {"Host": host}, CONTENT) == SERVED
        assert say(named.depot_url, "GET", GET, {"Host": host}) == SERVED
    for host in ("evil.example", "sled-7.example.evil", "sled-7"):
        assert say(named.agent_url, "PUT", PUT, {"Host": host}, CONTENT) == UNKNOWN_HOST
        assert say(named.agent_url, "GET", "/status", {"Host": host}) == UNKNOWN_HOST
        assert say(named.depot_url, "GET", GET, {"Host": host}) == UNKNOWN_HOST
