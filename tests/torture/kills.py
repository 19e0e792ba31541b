"""SIGKILL: what a process leaves behind that dies between two instructions.

Each run lives a life until it is killed, sometimes another that is killed while it picks up the
pieces, and then a calm one that has to find everything in order. In one campaign a third of the
kills come a random time after the process began, the others after one of its operations began, so
that they fall into all of them. A fifth of these lives has a process for each dataset, which dies
with the other or a moment before it. In the other campaign kills come right before or right after a
system call that changes a dataset: some moments are too short to be met by chance.
"""

from __future__ import annotations

import copy
import fcntl
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import psutil

from depot.device.host import DeviceWorkers
from depot.initialise import init_datasets
from tests.memory_dir import memory_dir
from tests.torture.bench import live_in_peace
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import TIMEOUT_S, Child, Tell
from tests.torture.cutting import CutPoint, CuttingDisk
from tests.torture.history import Event, History
from tests.torture.judge import Places, judge_dead
from tests.torture.workload import Script, live

_LONGEST_LIFE_US: Final = 150_000
_LONGEST_OPERATION_US: Final = 8_000
_MOST_OPERATIONS: Final = 25
_BY_TIME: Final = 0.3
_AGAIN: Final = 0.25
_IN_PROCESSES: Final = 0.2
_LONGEST_START_US: Final = 600_000
"""What is added to a life for the start of processes, in most of which nothing happens yet."""
_UNUSED_WITHIN_S: Final = 20.0
_CALM_STEPS: Final = 2
# An operation makes about ten on each dataset.
_MOST_CALLS: Final = 120
_NO_END: Final = 1_000_000


class Node:
    """Two datasets in memory with some history, that every run begins with."""

    def __init__(self, root: Path) -> None:
        self._template = root / "template"
        self._root = root / "node"
        self.founded = History()
        self.places = _places(self._root)
        for dataset in self.places.datasets:
            dataset.mkdir(parents=True)
        init_datasets(self.places.datasets, sled_id="sled-under-torture")
        live_in_peace(self.places, self.founded, Script("founding", 12, calm=True))
        for dataset in self.places.datasets:
            (dataset / ".sled-depot/reserve").unlink()  # large, and taken anew by every life
        self._root.rename(self._template)

    def restore(self) -> History:
        """Begin from the start; what has happened so far."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._template, self._root)
        return copy.deepcopy(self.founded)


def _places(root: Path) -> Places:
    return Places((root / "a", root / "b"), root / "state")


class Doomed:
    """One life that is killed, at a microsecond that is drawn.

    Attributes:
        interrupted: what it was doing.
    """

    def __init__(self, places: Places, history: History, rng: random.Random, seed: str) -> None:
        self.places = places
        self.history = history
        self.seed = seed
        self._running: dict[int, str] = {}
        self._opened = False
        self._operations = 0
        self.workers = DeviceWorkers.THREAD
        self.draw(rng)

    def draw(self, rng: random.Random) -> None:
        """Draw when it is killed, and how."""
        by_time = rng.random() < _BY_TIME
        self._after_operations = 0 if by_time else rng.randint(1, _MOST_OPERATIONS)
        most_us = _LONGEST_LIFE_US if by_time else _LONGEST_OPERATION_US
        if rng.random() < _IN_PROCESSES:
            self.workers = DeviceWorkers.PROCESS
            most_us += _LONGEST_START_US if by_time else 0
        self._delay_s = rng.randrange(most_us) / 1e6
        self._workers_first = rng.random() < 0.5

    @property
    def interrupted(self) -> list[str]:
        if not self._opened:
            return ["opening"]
        return sorted(set(self._running.values())) or ["other moments"]

    def run(self) -> None:
        """Live and be killed."""
        child = Child.fork(self.live)
        try:
            self.end(child)
            for event in child.rest():
                self._note(event)
        finally:
            child.reap()
        _wait_until_unused(self.places.datasets)

    def live(self, tell: Tell) -> None:
        """In the child."""
        live(self.places, self.history, Script(self.seed, _NO_END, workers=self.workers), tell)

    def end(self, child: Child) -> None:
        """Kill it when its moment has come."""
        if self._after_operations:
            for event in child.told(TIMEOUT_S):
                self._note(event)
                if self._operations >= self._after_operations:
                    break
        # What it tells stays in the pipe meanwhile: far less than a pipe holds.
        time.sleep(self._delay_s)
        if self._workers_first:
            for worker in psutil.Process(child.pid).children():
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
        child.kill()

    def _note(self, event: Event) -> None:
        self.history.note(event)
        match event["what"]:
            case "begun":
                self._running[event["id"]] = event["op"]
                self._operations += 1
            case "done" | "refused" | "failed":
                self._running.pop(event["id"])
            case "found":
                self._opened = True
            case _:
                pass


class DoomedAtCall(Doomed):
    """One life that ends right before or right after a system call that is drawn."""

    def draw(self, rng: random.Random) -> None:
        self._at_call = rng.randint(1, _MOST_CALLS)
        self._after = rng.random() < 0.5

    def live(self, tell: Tell) -> None:
        point = CutPoint(lambda: os.kill(os.getpid(), signal.SIGKILL), after=self._after)
        point.arm(self._at_call)
        script = Script(self.seed, _NO_END, disk_of=lambda _: CuttingDisk(point))
        live(self.places, self.history, script, tell)

    def end(self, child: Child) -> None:
        """It ends by itself."""


def _wait_until_unused(datasets: Sequence[Path]) -> None:
    """The kernel kills the processes of a dataset with their agent, if not at the same instant.

    Raises:
        AssertionError: one lives on, and keeps its dataset from the next agent (S3).
    """
    ends_at_s = time.monotonic() + _UNUSED_WITHIN_S
    for dataset in datasets:
        while _is_used(dataset):
            assert time.monotonic() < ends_at_s, f"S3 {dataset} is in use, and nobody lives"
            time.sleep(0.001)


def _is_used(dataset: Path) -> bool:
    with (dataset / ".sled-depot/lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _strike(kind: type[Doomed], node: Node, seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    history = node.restore()
    workers = DeviceWorkers.THREAD
    for number in range(2 if rng.random() < _AGAIN else 1):
        life = kind(node.places, history, rng, f"{seed}.{number}")
        life.run()
        counts["kills"] += 1
        workers = life.workers
        counts["in processes"] += workers is DeviceWorkers.PROCESS
        for operation in life.interrupted:
            counts[f"in {operation}"] += 1
        judge_dead(node.places, history)
    calm = Script(f"{seed}.calm", _CALM_STEPS, calm=True, workers=workers)
    live_in_peace(node.places, history, calm)


def _run(kind: type[Doomed], plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=memory_dir()) as root:
        node = Node(Path(root))
        return strike_each(plan, lambda seed: _strike(kind, node, seed, counts), counts)


CAMPAIGN: Final = Campaign(
    name="kill",
    about="SIGKILL at a random microsecond",
    runs=2_000,
    slice_runs=20,
    run=partial(_run, Doomed),
)
AT_CALL: Final = Campaign(
    name="kill-at-call",
    about="SIGKILL right before or after a system call",
    runs=2_000,
    slice_runs=20,
    run=partial(_run, DoomedAtCall),
)
