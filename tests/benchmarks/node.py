"""A real agent, and what a benchmark asks of it, over plain blocking HTTP."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from agent.config.keys import KEYS
from tests.benchmarks.body import Body
from tests.benchmarks.clients import PATIENCE_S, send
from tests.benchmarks.measure import Sample
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.raw import settle
from tests.system.agents import RunningAgent

# What is dropped is deleted at once, also when it is all there was.
DEFAULTS: Final = {"storage.delete_grace": "0s"}
FILE_POLL_S: Final = 0.005
# Each question costs the agent about a millisecond of the core that it copies with.
COPY_POLL_S: Final = 0.02
RUNNING: Final = "running"

_VARIABLES: Final = {key.name: key.variable for key in KEYS}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings by their names in the file, as an agent's environment."""
    chosen = {_VARIABLES[name]: value for name, value in (DEFAULTS | dict(settings)).items()}
    # As where it is installed: an agent that may keep no bytecode compiles itself at every start.
    return {"PYTHONDONTWRITEBYTECODE": "", **chosen}


class Node:
    """One agent of the benchmark, in a directory of its own."""

    def __init__(self, agent: RunningAgent) -> None:
        self.agent = agent
        self.generation = 0

    @property
    def pid(self) -> int:
        return self.agent.pid

    def artifact_url(self, sha256: str) -> str:
        return f"{self.agent.depot_url}/artifact/sha256/{sha256}"

    def put_url(self, sha256: str) -> str:
        return f"{self.agent.agent_url}/artifacts/{sha256}?generation={self.generation}"

    def want(self, *artifacts: str) -> None:
        """Make these the config, wait until the files of all others are gone, settle the disk."""
        self.send_config(artifacts)
        self.wait_dropped(artifacts)
        settle()

    def wait_dropped(self, artifacts: Collection[str]) -> None:
        """Wait until no files are left but of these."""
        _wait_until(
            lambda: self._files() <= set(artifacts), "what was dropped is there", FILE_POLL_S
        )

    def send_config(self, artifacts: Collection[str]) -> float:
        """Make these the config: the seconds that the request took."""
        self.generation += 1
        config = {"generation": self.generation, "artifacts": sorted(artifacts)}
        content = json.dumps(config)
        began_s = time.perf_counter()
        self.call("PUT", "/artifacts-config", content)
        return time.perf_counter() - began_s

    def put(self, body: Body) -> Sample:
        """Send a body: from the first byte of the request to the last of the answer."""
        with cpu_of(self.pid) as cpu:
            answer = send("PUT", self.put_url(body.sha256), body.path, 200)
        self.check_mirrored(json.loads(answer.content))
        return Sample.of_bytes(body.size_bytes, answer.seconds, cpu.seconds)

    def copy(self, body: Body, source: Node) -> Sample:
        """Have an artifact copied from another node: from the request to its success."""
        with cpu_of(self.pid) as cpu:
            began_s = time.perf_counter()
            copy_id = self.begin_copy(body.sha256, source)
            assert copy_id is not None, f"{source.agent.depot_url} has no {body.sha256}"
            _wait_until(
                lambda: self.copy_record(copy_id)["state"] != RUNNING, "it copies", COPY_POLL_S
            )
            seconds = time.perf_counter() - began_s
        self.check_mirrored(self.copy_record(copy_id))
        return Sample.of_bytes(body.size_bytes, seconds, cpu.seconds)

    def begin_copy(self, sha256: str, source: Node) -> str | None:
        """Ask for a copy: its id, None when the source has nothing to copy."""
        path = f"/artifacts/{sha256}/copy-from-depot?generation={self.generation}"
        request = json.dumps({"depot_base_url": source.agent.depot_url})
        status, answer = self._ask("POST", path, request)
        if status == http.client.BAD_GATEWAY:
            return None
        _expect(status, answer, 202)
        return str(answer["copy_id"])

    def copy_record(self, copy_id: str) -> dict[str, Any]:
        return self.call("GET", f"/copies/{copy_id}")

    def check_mirrored(self, answer: Mapping[str, Any]) -> None:
        # A run that stored less did not do the work it would be praised for.
        if answer.get("successful_writes") != len(self.agent.datasets):
            raise RuntimeError(f"expected a copy on every dataset, found {answer}")

    def call(self, method: str, path: str, content: str | None = None) -> dict[str, Any]:
        """Ask the agent's API; what it answers."""
        status, answer = self._ask(method, path, content)
        _expect(status, answer, 200, 202, 204)
        return answer

    def content(self, path: str) -> bytes:
        """Get what the agent's API answers, as it comes: to read it takes this process a while."""
        status, content = self._send("GET", path)
        if status != http.client.OK:
            raise RuntimeError(f"expected 200, found {status}: {content[:1000]!r}")
        return content

    def _ask(self, method: str, path: str, content: str | None) -> tuple[int, dict[str, Any]]:
        status, answered = self._send(method, path, content)
        answer: dict[str, Any] = json.loads(answered or b"{}")
        return status, answer

    def _send(self, method: str, path: str, content: str | None = None) -> tuple[int, bytes]:
        address = urlsplit(self.agent.agent_url).netloc
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        connection.request(method, path, content)
        response = connection.getresponse()
        answered = response.read()
        connection.close()
        return response.status, answered

    def _files(self) -> set[str]:
        names = {path.name for dataset in self.agent.datasets for path in dataset.iterdir()}
        return {name for name in names if len(name) == 64}


def _expect(status: int, answer: Mapping[str, Any], *expected: int) -> None:
    if status not in expected:
        raise RuntimeError(f"expected {expected}, found {status}: {answer}")


def _wait_until(condition: Callable[[], bool], still: str, poll_s: float) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{still}, after {PATIENCE_S:.0f} s")
        time.sleep(poll_s)
