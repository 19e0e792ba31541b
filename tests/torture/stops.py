"""SIGSTOP for longer than any deadline: a process that slept blames nobody for it for ever.

Each run lives a life that is stopped in an operation that is drawn, for several deadlines, and goes
on. Its operations may fail for that, but nothing is lost, and after a few looks at the datasets
both are used again and everything is brought back onto both, in the same process. Its disks are
slow, so that most stops find a call under way.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.memory_dir import memory_dir
from tests.torture.bench import live_in_peace
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import TIMEOUT_S, Child, Tell
from tests.torture.cutting import CutPoint, CuttingDisk
from tests.torture.history import Event, History
from tests.torture.judge import Places, judge_dead
from tests.torture.kills import Node
from tests.torture.workload import Script, live

DEADLINE_S: Final = 1.0
_SHORTEST_S: Final = 1.5 * DEADLINE_S
_LONGEST_S: Final = 3 * DEADLINE_S
_NO_END: Final = 1_000_000
_CALL_S: Final = 0.004
_MOST_OPERATIONS: Final = 12
_LONGEST_OPERATION_US: Final = 25_000
_LISTENING: Final[Event] = {"what": "listening"}
"""Told first: a process that was stopped earlier would not learn that it goes on."""


class _Slow(CutPoint):
    """Every call that changes something takes a while."""

    def __init__(self) -> None:
        super().__init__(lambda: None, after=False)

    @contextmanager
    def call(self) -> Iterator[None]:
        time.sleep(_CALL_S)
        yield


class _Stopped:
    """A life that is stopped once.

    Attributes:
        during: the operation that had begun last.
        failed: how many operations a deadline has ended.
    """

    def __init__(self, history: History, rng: random.Random) -> None:
        self.during = "opening"
        self.failed = 0
        self._history = history
        self._after_operations = rng.randrange(_MOST_OPERATIONS + 1)
        self._delay_s = rng.randrange(_LONGEST_OPERATION_US) / 1e6
        self._stopped_s = rng.uniform(_SHORTEST_S, _LONGEST_S)
        self._operations = 0

    def follow(self, child: Child) -> None:
        """Take in what it tells, stop it on the way, and let it go on to its end."""
        try:
            self._await_moment(child)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(self._stopped_s)
            os.kill(child.pid, signal.SIGCONT)
            for event in child.rest():
                self._note(event)
            status = child.wait()
        finally:
            child.reap()
        assert status == 0, f"the process ended with {status}"

    def _await_moment(self, child: Child) -> None:
        next(child.told(TIMEOUT_S))
        if self._after_operations:
            for event in child.told(TIMEOUT_S):
                self._note(event)
                if self._operations >= self._after_operations:
                    self.during = event["op"]
                    break
        time.sleep(self._delay_s)

    def _note(self, event: Event) -> None:
        self._history.note(event)
        self._operations += event["what"] == "begun"
        self.failed += event["what"] == "failed"


def _live(places: Places, history: History, seed: str, tell: Tell) -> None:
    """In the child: go on until it was stopped, and then recover."""
    continued = threading.Event()
    signal.signal(signal.SIGCONT, lambda *_: continued.set())
    tell(_LISTENING)
    script = Script(
        seed,
        _NO_END,
        goes_on=lambda _: not continued.is_set(),
        disk_of=lambda _: CuttingDisk(_Slow()),
        recovers=True,
        device_timeout_s=DEADLINE_S,
    )
    live(places, history, script, tell)


def _strike(node: Node, seed: int, counts: Counter[str]) -> None:
    history = node.restore()
    life = _Stopped(history, random.Random(seed))
    life.follow(Child.fork(partial(_live, node.places, history, str(seed))))
    counts[f"in {life.during}"] += 1
    counts["operations that failed"] += life.failed
    judge_dead(node.places, history)
    live_in_peace(node.places, history, Script(f"{seed}.calm", 1, calm=True))


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=memory_dir()) as root:
        node = Node(Path(root))
        return strike_each(plan, lambda seed: _strike(node, seed, counts), counts)


CAMPAIGN: Final = Campaign(
    name="stop",
    about="SIGSTOP for several deadlines, then SIGCONT",
    runs=200,
    slice_runs=4,
    run=_run,
)
