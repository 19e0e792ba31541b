"""Two whole agents, each with a process for every dataset, that live through hundreds of mishaps.

The other campaigns judge what is left on disk by lives that are short. Here the processes stay:
they are sent right and wrong bytes, broken requests and stale configs, copy from each other, have
copies rot, workers killed and datasets taken away. Whatever they answer is right (B2); in the end
every copy is (B1, B5); and they hold no more than when they were warm. A brief life (`--brief`) is
the beginning of one, as long as `--seconds` lets it be: all is judged but what they hold.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from tests import ondisk
from tests.store.damage import flip, hurt_file, truncate
from tests.system.agents import RunningAgent
from tests.system.asking import ask, await_status, put, put_config, status_of
from tests.torture.campaign import Campaign, Held, Outcome, Plan, growth, strike_each

MIB: Final = 1 << 20
MISHAPS: Final = 400
WARM_AFTER: Final = 150
SLICE_S: Final = 6.0
PATIENCE_S: Final = 120.0
THREADS_SLACK: Final = 24
"""Pools keep the threads that they had to start; if one mishap in ten left one, that is more."""
MEMORY_SLACK: Final = 24 * MIB
"""Bytes of all processes of two agents together that allocators may come to keep."""
SETTINGS: Final = {
    "SLED_AGENT__STORAGE__VERIFY_READS": "always",
    "SLED_AGENT__STORAGE__DELETE_GRACE": "0s",
}
SIZES: Final = (1, 4096, 65536, MIB, MIB + 1, 5 * MIB + 77)
_NOISE: Final = random.Random(9).randbytes(6 * MIB)
CONTENTS: Final = [
    bytes([turn]) + _NOISE[turn * 1000 :][: size - 1] for turn in (1, 2) for size in SIZES
]
BY_NAME: Final = {ondisk.sha256(content): content for content in CONTENTS}
BROKEN: Final = (
    b"GET /artifact/sha256/" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\nRange: bytes=9-1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PUT /artifacts-config HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[[[[[[[[[",
    b"GET /artifacts HTTP/1.1\r\nHost: x\r\n",
)


class Life:
    """Two agents and what is done to them."""

    def __init__(self, agents: list[RunningAgent], rng: random.Random) -> None:
        self._agents = agents
        self._rng = rng
        self._generation = 0
        self._wanted: list[str] = []
        self.counts: Counter[str] = Counter()

    def configure(self) -> None:
        self._generation += 1
        self._wanted = self._rng.sample([*BY_NAME], self._rng.randint(4, len(BY_NAME)))
        for agent in self._agents:
            answer = put_config(agent, self._generation, *self._wanted)
            assert answer.status == 204, answer

    def live(self, mishaps: int, ends_at_s: float) -> bool:
        """Have so many mishaps, and get over them; False when the time was over before the last."""
        for _ in range(mishaps):
            if time.monotonic() >= ends_at_s:
                break
            self._mishap()
            mishaps -= 1
        self._settle()
        return not mishaps

    def _mishap(self) -> None:
        does: Callable[[Life, RunningAgent, str], None] = self._rng.choice(_MISHAPS)
        self.counts[does.__name__.lstrip("_")] += 1
        does(self, self._rng.choice(self._agents), self._rng.choice(self._wanted))

    def _settle(self) -> None:
        """Have every artifact everywhere, whole."""
        for agent in self._agents:
            _await_healthy(agent)
            for name in self._wanted:
                answer = put(agent, name, self._generation, BY_NAME[name])
                assert answer.status == 200, answer
            assert ask(agent.agent_url, "/scrub", "POST").status < 300
            _await_idle(agent)
            for dataset in agent.datasets:
                assert ondisk.artifact_files(dataset).keys() == set(self._wanted)
                assert ondisk.wrong_bytes(dataset) == []
                assert ondisk.staged_files(dataset) == []

    def _put(self, agent: RunningAgent, name: str) -> None:
        answer = put(agent, name, self._generation, BY_NAME[name])
        assert answer.status == 200, answer

    def _put_wrong(self, agent: RunningAgent, name: str) -> None:
        wrong = BY_NAME[name][:-1] + b"!"
        assert put(agent, name, self._generation, wrong).status in (200, 400), "held, or refused"

    def _put_broken_off(self, agent: RunningAgent, name: str) -> None:
        head = f"PUT /artifacts/{name}?generation={self._generation} HTTP/1.1\r\nHost: x\r\n"
        half = BY_NAME[name][: len(BY_NAME[name]) // 2]
        _send(agent.agent_url, f"{head}Content-Length: {len(half) * 2 + 1}\r\n\r\n".encode() + half)

    def _stale(self, agent: RunningAgent, _name: str) -> None:
        assert put_config(agent, self._generation - 1).status == 409

    def _reconfigure(self, _agent: RunningAgent, _name: str) -> None:
        self.configure()

    def _get(self, agent: RunningAgent, name: str) -> None:
        try:
            answer = ask(agent.depot_url, f"/artifact/sha256/{name}")
        except (OSError, http.client.HTTPException):
            # The only copy there was turned out bad, or its worker died: the answer is cut short.
            self.counts["cut_short"] += 1
            return
        assert answer.status in (200, 404), answer
        assert answer.status == 404 or answer.body == BY_NAME[name], "B2"

    def _get_broken_off(self, agent: RunningAgent, name: str) -> None:
        _send(agent.depot_url, f"GET /artifact/sha256/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def _broken(self, agent: RunningAgent, _name: str) -> None:
        url = self._rng.choice([agent.agent_url, agent.depot_url])
        _send(url, self._rng.choice(BROKEN))

    def _copy(self, agent: RunningAgent, name: str) -> None:
        (other,) = (each for each in self._agents if each is not agent)
        path = f"/artifacts/{name}/copy-from-depot?generation={self._generation}"
        answer = ask(agent.agent_url, path, "POST", {"depot_base_url": other.depot_url})
        assert answer.status in (202, 429, 502), answer

    def _rot(self, agent: RunningAgent, name: str) -> None:
        harm = self._rng.choice([flip(0), truncate(0)])
        # It may be on its way in, out or into quarantine.
        with suppress(FileNotFoundError):
            hurt_file(agent.datasets[0] / name, harm)
        self._get(agent, name)

    def _scrub(self, agent: RunningAgent, _name: str) -> None:
        assert ask(agent.agent_url, "/scrub", "POST").status < 300

    def _look(self, agent: RunningAgent, name: str) -> None:
        for path in ("/status", "/metrics", "/artifacts", f"/artifacts/{name}", "/quarantine"):
            assert ask(agent.agent_url, path).status in (200, 404)

    def _kill_worker(self, agent: RunningAgent, _name: str) -> None:
        victim = self._rng.choice(status_of(agent)["datasets"])["worker_pid"]
        os.kill(victim, signal.SIGKILL)
        _await_healthy(agent, but_pid=victim)

    def _take_away(self, agent: RunningAgent, name: str) -> None:
        dataset = self._rng.choice(agent.datasets)
        away = dataset.with_name(f"{dataset.name}-away")
        dataset.rename(away)
        self._put(agent, name)
        self._get(agent, name)
        away.rename(dataset)
        _await_healthy(agent)


_MISHAPS: Final = (
    *(Life._put, Life._get, Life._copy, Life._rot) * 4,
    *(Life._put_wrong, Life._put_broken_off, Life._get_broken_off, Life._broken) * 3,
    *(Life._stale, Life._reconfigure, Life._look, Life._scrub) * 2,
    Life._kill_worker,
    Life._take_away,
)


def _send(url: str, content: bytes) -> None:
    """Send it and go away, after the first bytes of an answer or none."""
    address = urlsplit(url)
    with (
        suppress(OSError),
        socket.create_connection((address.hostname, address.port), timeout=0.2) as connection,
    ):
        connection.sendall(content)
        connection.recv(1)


def _await_healthy(agent: RunningAgent, but_pid: int | None = None) -> None:
    """Wait for every dataset to be in use, by another process than that one."""
    await_status(
        agent,
        lambda status: all(
            dataset["state"] == "healthy" and dataset["worker_pid"] != but_pid
            for dataset in status["datasets"]
        ),
        within_s=PATIENCE_S,
    )


def _await_idle(agent: RunningAgent) -> None:
    await_status(
        agent,
        lambda status: (
            not status["healing"]["todo"]
            and all(each["state"] != "running" for each in status["scrub"]["datasets"])
        ),
        within_s=PATIENCE_S,
    )


def _held(agents: list[RunningAgent]) -> Held:
    found = []
    for agent in agents:
        main = psutil.Process(agent.pid)
        found += [main, *main.children(recursive=True)]
    descriptors = sum(process.num_fds() for process in found)
    threads = sum(process.num_threads() for process in found)
    return Held(descriptors, threads, sum(process.memory_full_info().uss for process in found))


def _await_no_more_than(agents: list[RunningAgent], warm: Held) -> Held:
    """Wait until what is idle has been let go of."""
    ends_at_s = time.monotonic() + PATIENCE_S
    while True:
        now = _held(agents)
        more = now.descriptors > warm.descriptors or now.threads > warm.threads + THREADS_SLACK
        if not more or time.monotonic() >= ends_at_s:
            assert not more, f"held were {warm}, are {now}"
            assert now.memory - warm.memory <= MEMORY_SLACK, f"memory: was {warm}, is {now}"
            return now
        time.sleep(0.5)


def _strike(
    seed: int, ends_at_s: float, counts: Counter[str], held: list[tuple[Held, Held]]
) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as home, ExitStack() as stack:
        agents = [
            stack.enter_context(RunningAgent(Path(home) / name, env=SETTINGS))
            for name in ("one", "other")
        ]
        life = Life(agents, rng)
        life.configure()
        try:
            whole = life.live(WARM_AFTER, ends_at_s)
            warm = _held(agents)
            whole = whole and life.live(MISHAPS, ends_at_s)
            if whole:  # what is not warm yet comes to hold more
                held.append((warm, _await_no_more_than(agents, warm)))
        except Exception as error:
            error.add_note("\n".join(agent.log_tail(8) for agent in agents))
            raise
        counts += life.counts
        if not whole:
            counts["brief"] += 1


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    held: list[tuple[Held, Held]] = []
    ends_at_s = plan.ends_at_s if plan.brief else float("inf")
    outcome = strike_each(plan, lambda seed: _strike(seed, ends_at_s, counts, held), counts)
    # What the agents held is of interest, not what the process did that mistreated them.
    return replace(outcome, held=max(held, key=growth, default=None))


CAMPAIGN: Final = Campaign(
    "endurance",
    f"two agents that live through {MISHAPS} mishaps, and hold no more than before",
    runs=8,
    slice_runs=1,
    slice_s=SLICE_S,
    run=_run,
)
