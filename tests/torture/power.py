"""Power cuts on ext4 and xfs: of one dataset, of both, or of the whole machine.

Each run starts from the same disks, lives until its power is cut at a point that is drawn, and goes
on on what a mount finds: the dead datasets are judged, then the store is opened, judged, healed,
written to and closed, and its datasets are judged again. Some are cut a second time while they
recover from the first cut.

The state directory has a disk of its own, as on a node, whose boot disk is neither dataset; it
loses its power together with the machine.
"""

from __future__ import annotations

import copy
import os
import random
import signal
from collections import Counter
from functools import partial
from typing import Final

from tests.torture.bench import Bench, benches, listen, live_in_peace
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import TIMEOUT_S, Child, Tell
from tests.torture.cutting import CutPoint, CuttingDisk
from tests.torture.disks import LoopDisk, opened_for_cutting
from tests.torture.history import Event, History
from tests.torture.judge import judge_dead
from tests.torture.workload import Script, glimpse, live

KINDS: Final = ("ext4", "xfs")
_SECOND_CUT: Final = 0.25
_ONE_AWAY: Final = 0.2
_BY_TIME: Final = 0.25
_LONGEST_S: Final = 0.05
_STEPS: Final = 12
# The cut is armed before one of these.
_ARMED_BY: Final = 5
# What is left may go on for so long while a dataset is dead.
_STEPS_AFTER: Final = 3
_CALM_STEPS: Final = 2
# One operation makes about ten calls on each dataset.
_CALLS: Final = 14


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with benches(KINDS) as ready:
        return strike_each(plan, lambda seed: _strike(ready, seed, counts), counts)


def _strike(ready: dict[str, Bench], seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    kind = rng.choice(KINDS)
    bench = ready[kind]
    for disk in bench.disks:
        disk.restore()
    history = copy.deepcopy(bench.founded)
    for number in range(2 if rng.random() < _SECOND_CUT else 1):
        life = _Doomed(bench, history, rng, f"{seed}.{number}")
        with bench.mounted() as places:
            if number:
                judge_dead(places, history)
            life.run()
        counts[f"cuts of {life.victims}"] += 1
        for operation in life.interrupted:
            counts[f"in {operation}"] += 1
    if rng.random() < _ONE_AWAY:
        with bench.mounted(without=rng.choice(bench.disks[:2])) as places:
            listen(Child.fork(partial(glimpse, places, history)), history)
    with bench.mounted() as places:
        judge_dead(places, history)
        live_in_peace(places, history, Script(f"{seed}.calm", _CALM_STEPS, calm=True))


class _Doomed:
    """One life whose power is cut.

    Attributes:
        victims: whose power: A, B, AB, or the machine's.
        interrupted: what was being done when the power went.
    """

    def __init__(self, bench: Bench, history: History, rng: random.Random, seed: str) -> None:
        self.bench = bench
        self.history = history
        self.seed = seed
        self.victims = rng.choice(["A", "B", "AB", "machine", "machine", "machine"])
        self.by_time_s = rng.uniform(0, _LONGEST_S) if rng.random() < _BY_TIME else None
        self.armed_at = rng.randrange(-1, _ARMED_BY)
        self.at_call = rng.randint(1, _CALLS)
        self.counted = rng.choice(["A", "B", "AB"])
        self.after_call = rng.random() < 0.5
        self.once_opened = rng.random() < 0.8
        self.kill_first = rng.random() < 0.5
        self.interrupted: list[str] = ["other moments"]
        self._running: dict[int, str] = {}
        self._cut = False
        self._steps_after = 0

    def run(self) -> None:
        child = Child.fork(self.live)
        try:
            if self.by_time_s is not None:
                self.cut_by_time(child, self.by_time_s)
            for event in child.rest():
                self.note(event)
        finally:
            child.reap()
        self.note_cut()
        self.cut("machine")

    def live(self, tell: Tell) -> None:
        """In the child: live, and be cut at the call that was drawn."""
        tell({"what": "alive"})
        a, b, _state = self.bench.disks
        victims = self._disks_of(self.victims) if self.by_time_s is None else []
        with opened_for_cutting(victims) as cut:

            def strike() -> None:
                cut()
                tell({"what": "cut"})
                if self.victims == "machine":
                    os.kill(os.getpid(), signal.SIGKILL)

            point = CutPoint(strike, after=self.after_call)
            counted = {d.mount_point for d, name in ((a, "A"), (b, "B")) if name in self.counted}
            script = Script(
                self.seed,
                _STEPS,
                goes_on=partial(self.goes_on, point),
                disk_of=lambda path: CuttingDisk(point if path in counted else None),
            )
            self.goes_on(point, -1)
            live(self.bench.places, self.history, script, tell)

    def goes_on(self, point: CutPoint, step: int) -> bool:
        """Arm the cut when it is time; the life ends some steps after it."""
        if step == self.armed_at and self.by_time_s is None:
            point.arm(self.at_call)
        if point.struck:
            self._steps_after += 1
        return self._steps_after <= _STEPS_AFTER

    def note(self, event: Event) -> None:
        self.history.note(event)
        match event["what"]:
            case "begun":
                self._running[event["id"]] = event["op"]
            case "done" | "refused" | "failed":
                self._running.pop(event["id"])
            case "cut":
                self.note_cut()
            case _:
                pass

    def note_cut(self) -> None:
        if not self._cut:
            self._cut = True
            self.interrupted = sorted(set(self._running.values())) or ["other moments"]

    def cut_by_time(self, child: Child, after_s: float) -> None:
        """Cut while the child lives; with the machine it dies, a moment before or after."""
        for event in child.told(TIMEOUT_S):
            self.note(event)
            if event["what"] == "found" and self.once_opened:
                break
            if event["what"] == "alive" and not self.once_opened:
                break
        for event in child.told(after_s):
            self.note(event)
        self.note_cut()
        if self.victims == "machine" and self.kill_first:
            child.kill()
        self.cut(self.victims)
        if self.victims == "machine":
            child.kill()

    def cut(self, victims: str) -> None:
        disks = self._disks_of(victims)
        for disk in disks:
            disk.cut()

    def _disks_of(self, victims: str) -> list[LoopDisk]:
        a, b, state = self.bench.disks
        return {"A": [a], "B": [b], "AB": [a, b], "machine": [a, b, state]}[victims]


CAMPAIGN: Final = Campaign(
    name="power-cut",
    about="the power of a dataset, of both or of the machine is cut, on ext4 and xfs",
    runs=5_000,
    slice_runs=40,
    run=_run,
    alone=True,
)
