"""What a crash campaign needs: a killer with a timer, a follower of events, and a judge of disks.

The judge knows what an agent has acknowledged (`Promise`) and reads the dataset directories with
`tests.ondisk`; nothing here asks the store what it believes, except to compare it with the disk.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import Answer, ask, connect, read_answer

LOST: Final = (OSError, http.client.HTTPException)
"""How a connection to a killed process ends."""

_FIRST_BYTES: Final = 64 << 10
# How many events of the past are read again after a restart.
_REREAD_EVENTS: Final = 500


class Killer:
    """SIGKILLs an agent a while after `start`, or at once by `now`; use one per life."""

    def __init__(self, agent: RunningAgent, delay_s: float) -> None:
        self._pid = agent.pid
        self._timer = threading.Timer(delay_s, self._kill)
        self.struck = False

    def start(self) -> None:
        self._timer.start()

    def now(self) -> None:
        """Kill, unless that was done, and return when it is done."""
        self._timer.cancel()
        self.wait()
        if not self.struck:
            self._kill()

    def wait(self) -> None:
        if self._timer.ident is not None:
            self._timer.join()

    def _kill(self) -> None:
        self.struck = True
        os.kill(self._pid, signal.SIGKILL)


def send(
    agent: RunningAgent, method: str, path: str, body: bytes, on_first_bytes: Callable[[], None]
) -> Answer | None:
    """Send a request, telling when its first bytes are out; None when the connection was lost."""
    connection = connect(agent.agent_url)
    try:
        connection.putrequest(method, path)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        connection.send(body[:_FIRST_BYTES])
        on_first_bytes()
        connection.send(memoryview(body)[_FIRST_BYTES:])
        return read_answer(connection)
    except LOST:
        return None
    finally:
        connection.close()


class EventFollower:
    """Reads an agent's events up to the moment it dies; remembers them over all its lives."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, Any]] = {}
        self.epochs: set[str] = set()
        self.reused: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._alive = False
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()

    def follow(self, agent: RunningAgent) -> None:
        """Begin with a life; events from before it are read again and compared."""
        self._alive = True
        self._thread = threading.Thread(target=self._read, args=(agent.agent_url,), daemon=True)
        self._thread.start()

    def find(self, kind: str, **fields: object) -> dict[str, Any] | None:
        """Wait for an event; None when the agent died before anybody heard of it."""
        wanted = {"kind": kind, **fields}.items()
        with self._news:
            while True:
                for event in reversed(self.seen.values()):
                    if all(event.get(key) == value for key, value in wanted):
                        return event
                if not self._alive:
                    return None
                self._news.wait()

    def join(self) -> None:
        """Wait for the end of a life that was killed."""
        if self._thread is not None:
            self._thread.join()

    def _read(self, url: str) -> None:
        after = max(0, max(self.seen, default=0) - _REREAD_EVENTS)
        try:
            while True:
                page = ask(url, f"/events?after={after}&wait_s=30").body
                with self._news:
                    self.epochs.add(page["epoch"])
                    for event in page["events"]:
                        after = event["sequence"]
                        known = self.seen.setdefault(after, event)
                        if known != event:
                            self.reused.append((known, event))
                    self._news.notify_all()
        except LOST:
            with self._news:
                self._alive = False
                self._news.notify_all()


@dataclass
class Promise:
    """What an agent has acknowledged, and the config it was about to when it died.

    Attributes:
        copies: by artifact, on how many datasets it was said to be.
        attempted: the config that was sent and not answered.
    """

    generation: int = 0
    artifacts: frozenset[str] = frozenset()
    copies: dict[str, int] = field(default_factory=dict)
    attempted: frozenset[str] | None = None

    def accepted(self, artifacts: frozenset[str]) -> None:
        """The next generation was acknowledged."""
        self.generation += 1
        self.artifacts, self.attempted = artifacts, None
        self.copies = {name: count for name, count in self.copies.items() if name in artifacts}

    def possible(self) -> list[tuple[int, frozenset[str]]]:
        """The configs that may be in force after a restart."""
        known = [(self.generation, self.artifacts)]
        if self.attempted is not None:
            known.append((self.generation + 1, self.attempted))
        return known


def judge_dead(agent: RunningAgent, promise: Promise, quota_bytes: int) -> None:
    """Judge the disks between a crash and the restart."""
    holders = dict.fromkeys(promise.copies, 0)
    for dataset in agent.datasets:
        assert ondisk.wrong_bytes(dataset) == [], f"B1 {dataset}"
        assert ondisk.stored_bytes(dataset) <= quota_bytes, f"Q1 {dataset}"
        ledger = ondisk.read_ledger(dataset)
        assert ledger is not None, f"G3 {dataset}"
        assert (ledger.generation, ledger.artifacts) in promise.possible(), f"G1 {dataset}"
        for name in ondisk.artifact_files(dataset).keys() & holders.keys():
            holders[name] += 1
    missing = {n: (holders[n], c) for n, c in promise.copies.items() if holders[n] < c}
    assert missing == {}, "B3: (found, promised)"


def judge_settled(agent: RunningAgent, promise: Promise) -> None:
    """Judge a restarted agent that has settled.

    It may go on meanwhile: it asks the peers it knows for what is wanted and nowhere here.
    """
    config = ask(agent.agent_url, "/artifacts-config").body
    assert (config["generation"], frozenset(config["artifacts"])) in promise.possible(), "G1"
    for dataset in agent.datasets:
        assert ondisk.wrong_bytes(dataset) == [], f"B1 {dataset}"
        ledger = ondisk.read_ledger(dataset)
        assert ledger is not None, f"G3 {dataset}"
        assert ledger.generation == config["generation"], f"G4 {dataset}"
        assert promise.copies.keys() <= ondisk.artifact_files(dataset).keys(), f"B5 {dataset}"


def is_settled(agent: RunningAgent, status: dict[str, Any], wanted: frozenset[str]) -> bool:
    """Whether nothing is left to heal or to delete (D3), nothing staged (Q3), all counted (Q1).

    What an agent says of its use may be behind the disk by one step; that the two are
    never the same again is what Q1 forbids.
    """
    busy = status["under_replicated"]["count"] or status["puts_running"]
    healthy = all(dataset["state"] == "healthy" for dataset in status["datasets"])
    # Names only: a file may go between being listed and being looked at.
    names = {name for path in agent.datasets for name in os.listdir(path)}
    orphans = {name for name in names - wanted if re.fullmatch("[0-9a-f]{64}", name)}
    staged = any(map(ondisk.staged_files, (*agent.datasets, agent.home / "state")))
    if not healthy or busy or orphans or staged:
        return False
    return all(map(_is_accounted, agent.datasets, status["datasets"]))


def _is_accounted(dataset: Path, said: dict[str, Any]) -> bool:
    try:
        on_disk = ondisk.stored_bytes(dataset)
    except FileNotFoundError:
        return False  # it goes at this moment
    return (said["used_bytes"], said["reserved_bytes"]) == (on_disk, 0)
