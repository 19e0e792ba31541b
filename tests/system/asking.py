"""A plain client for system tests: the standard library, and none of the project's own code.

`await_status` is how tests wait for what an agent does by itself: between two looks it waits on the
agent's event log, so nothing is slept for and a deadline ends it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tests.system.agents import RunningAgent

TIMEOUT_S: Final = 60.0
NOTICED_WITHIN_S: Final = 10.0
"""The contract's bound on noticing that a dataset came back."""


@dataclass(frozen=True)
class Answer:
    """A whole response; `body` is parsed when it is JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def error_code(self) -> str | None:
        return self.body.get("error_code") if isinstance(self.body, dict) else None


def connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    content = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    is_json = headers.get("content-type", "").startswith("application/json")
    return Answer(response.status, headers, json.loads(content) if is_json else content)


def ask(base_url: str, path: str, method: str = "GET", body: object = None) -> Answer:
    """Ask once; `body` is sent as it is when it is bytes, as JSON otherwise."""
    content, headers = _encoded(body)
    connection = connect(base_url)
    try:
        connection.request(method, path, body=content, headers=headers)
        return read_answer(connection)
    finally:
        connection.close()


def put_config(agent: RunningAgent, generation: int, *artifacts: str) -> Answer:
    config = {"generation": generation, "artifacts": artifacts}
    return ask(agent.agent_url, "/artifacts-config", "PUT", config)


def put(agent: RunningAgent, sha256: str, generation: int, content: bytes) -> Answer:
    return ask(agent.agent_url, f"/artifacts/{sha256}?generation={generation}", "PUT", content)


def status_of(agent: RunningAgent) -> dict[str, Any]:
    answer = ask(agent.agent_url, "/status")
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.body
    return body


def await_status(
    agent: RunningAgent,
    holds: Callable[[dict[str, Any]], bool],
    *,
    within_s: float = NOTICED_WITHIN_S,
) -> dict[str, Any]:
    """Return the first status for which `holds`; fail when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        status = status_of(agent)
        if holds(status):
            return status
        left_s = deadline - time.monotonic()
        assert left_s > 0, f"not within {within_s} s: {json.dumps(status)}\n{agent.log_tail()}"
        # At most a second: not everything that a test waits for is an event.
        after = status["events"]["latest"]
        ask(agent.agent_url, f"/events?after={after}&wait_s=1")


def _encoded(body: object) -> tuple[bytes | None, dict[str, str]]:
    if body is None or isinstance(body, bytes):
        return body, {}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}
