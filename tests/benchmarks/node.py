"""A real agent, and what a benchmark asks of it, over plain blocking HTTP."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from tests.benchmarks.body import Body
from tests.benchmarks.measure import Sample
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.raw import settle
from tests.system.agents import RunningAgent

# What is dropped is deleted at once, also when it is all there was.
ENVIRONMENT: Final = {"SLED_AGENT__STORAGE__DELETE_GRACE": "0s"}
VERIFY_READS: Final = "SLED_AGENT__STORAGE__VERIFY_READS"
FILE_POLL_S: Final = 0.005
# Each question costs the agent about a millisecond of the core that it copies with.
COPY_POLL_S: Final = 0.02
PATIENCE_S: Final = 120.0


class Node:
    """One agent of the benchmark, in a directory of its own."""

    def __init__(self, agent: RunningAgent) -> None:
        self.agent = agent
        self.pid = agent.pid
        self._address = urlsplit(agent.agent_url).netloc
        self._generation = 0

    def artifact_url(self, sha256: str) -> str:
        return f"{self.agent.depot_url}/artifact/sha256/{sha256}"

    def want(self, *artifacts: str) -> None:
        """Make these the config, and wait until the files of all others are gone for good."""
        self._generation += 1
        config = {"generation": self._generation, "artifacts": sorted(artifacts)}
        self._call("PUT", "/artifacts-config", config)
        _wait_until(
            lambda: self._files() <= set(artifacts), "what was dropped is there", FILE_POLL_S
        )
        settle()

    def put(self, body: Body) -> Sample:
        """Send a body: from the first byte of the request to the last of the answer.

        Sent with sendfile in one call, so that the sender takes next to nothing of the machine.
        """
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        connection.connect()
        with body.path.open("rb") as file, cpu_of(self.pid) as cpu:
            began_s = time.perf_counter()
            connection.putrequest("PUT", self._in_generation(f"/artifacts/{body.sha256}"))
            connection.putheader("Content-Length", str(body.size_bytes))
            connection.endheaders()
            connection.sock.sendfile(file)
            answer = _answer(connection, 200)
            seconds = time.perf_counter() - began_s
        self._check_mirrored(answer)
        return Sample(body.size_bytes, seconds, cpu.seconds)

    def copy(self, sha256: str, size_bytes: int, source: Node) -> Sample:
        """Have an artifact copied from another node: from the request to its success."""
        request = {"depot_base_url": source.agent.depot_url}
        path = self._in_generation(f"/artifacts/{sha256}/copy-from-depot")
        with cpu_of(self.pid) as cpu:
            began_s = time.perf_counter()
            copy_id = self._call("POST", path, request)["copy_id"]
            _wait_until(
                lambda: self._copy(copy_id)["state"] != "running", "the copy runs", COPY_POLL_S
            )
            seconds = time.perf_counter() - began_s
        self._check_mirrored(self._copy(copy_id))
        return Sample(size_bytes, seconds, cpu.seconds)

    def _copy(self, copy_id: str) -> dict[str, Any]:
        return self._call("GET", f"/copies/{copy_id}")

    def _check_mirrored(self, answer: dict[str, Any]) -> None:
        # A run that stored less did not do the work it would be praised for.
        if answer.get("successful_writes") != len(self.agent.datasets):
            raise RuntimeError(f"expected a copy on every dataset, found {answer}")

    def _in_generation(self, path: str) -> str:
        return f"{path}?generation={self._generation}"

    def _files(self) -> set[str]:
        names = {path.name for dataset in self.agent.datasets for path in dataset.iterdir()}
        return {name for name in names if len(name) == 64}

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self._address, timeout=PATIENCE_S)
        connection.request(method, path, None if body is None else json.dumps(body))
        return _answer(connection, 200, 202, 204)


def _answer(connection: http.client.HTTPConnection, *statuses: int) -> dict[str, Any]:
    response = connection.getresponse()
    content = response.read()
    connection.close()
    if response.status not in statuses:
        raise RuntimeError(f"expected {statuses}, found {response.status}: {content[:500]!r}")
    parsed: dict[str, Any] = json.loads(content or b"{}")
    return parsed


def _wait_until(condition: Callable[[], bool], still: str, poll_s: float) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{still}, after {PATIENCE_S:.0f} s")
        time.sleep(poll_s)
