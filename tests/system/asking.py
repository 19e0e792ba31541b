"""A plain client for system tests: the standard library, and none of the project's own code.

`await_status` is how tests wait for what an agent does by itself: between two looks it waits on the
agent's event log, so nothing is slept for and a deadline ends it.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tests.system.agents import RunningAgent

TIMEOUT_S: Final = 60.0
_CONTINUE: Final = b"HTTP/1.1 100"
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
    """Ask once, with `body` as JSON."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} if content else {}
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
    """Put an artifact; its bytes are sent once the agent wants them."""
    connection = connect(agent.agent_url)
    try:
        connection.putrequest("PUT", f"/artifacts/{sha256}?generation={generation}")
        connection.putheader("Expect", "100-continue")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders()
        # Only looked at: the library reads the 100 and passes over it by itself.
        if connection.sock.recv(len(_CONTINUE), socket.MSG_PEEK | socket.MSG_WAITALL) == _CONTINUE:
            with suppress(OSError):  # refused half-way: the answer says why
                connection.send(content)
        return read_answer(connection)
    finally:
        connection.close()


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
