"""What a campaign is: many runs of one kind of mistreatment, each drawn from a seed of its own.

The seed of a campaign's first run is the campaign's, and the others are derived from it. So any one
run is replayed by `python -m tests.torture NAME --seed SEED --runs 1` with the seed it was reported
with, and a campaign by the seed it began with.
"""

from __future__ import annotations

import gc
import hashlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import psutil
import structlog

from depot.freed_memory import give_back, give_back_large
from tests.memory_dir import memory_dir

SEED_BITS: Final = 40
ENOUGH_VIOLATIONS: Final = 20
"""A campaign that fails in every run needs no more of them to say so."""
SETTLED_WITHIN_S: Final = 10.0
"""What is still held so long after a run was left behind by it."""
WARM_RUNS: Final = 20
"""After so many, whatever is imported or kept for later is there."""
MEMORY_SLACK: Final = 32 << 20
"""Bytes that an allocator may come to keep; a leak of 20 KiB a run is more."""
_TOLD_EVERY: Final = 100


class Skip(Exception):
    """The campaign cannot be run on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One run that broke a rule.

    Attributes:
        seed: replays it.
        what: the rule and what was found.
    """

    campaign: str
    seed: int
    what: str

    def __str__(self) -> str:
        return f"{self.what}\n  replay: {replay_command(self.campaign, self.seed)}"


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds of the machine.

    Attributes:
        memory: resident bytes that are its own.
    """

    descriptors: int
    threads: int
    memory: int

    @classmethod
    def now(cls) -> Held:
        with open("/proc/self/statm") as statm:
            _, resident, shared, *_ = statm.read().split()
        memory = (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        return cls(len(os.listdir("/proc/self/fd")), threading.active_count(), memory)

    def __str__(self) -> str:
        return f"{self.descriptors} fds, {self.threads} threads, {self.memory / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a campaign.

    Attributes:
        skipped: why it was not run at all.
        counts: what else is worth knowing, such as how often the power was cut in which operation.
        noticed: by planted bug, the campaign that noticed it.
        held: what the process held when it was warm, and after the last run.
    """

    campaign: str
    seed: int
    runs: int = 0
    violations: tuple[Violation, ...] = ()
    seconds: float = 0.0
    skipped: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    noticed: Mapping[str, str] = field(default_factory=dict)
    held: tuple[Held, Held] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign is asked for.

    Attributes:
        ends_at_s: `time.monotonic()` after which no further run is begun.
        share: this process's turn and the number of turns, when several share the runs.
        enough: violations after which no further run is begun.
        brief: a run may be the beginning of one, where a whole one takes minutes.
    """

    campaign: str
    seed: int
    runs: int
    ends_at_s: float = float("inf")
    share: tuple[int, int] = (0, 1)
    enough: int = ENOUGH_VIOLATIONS
    brief: bool = False

    def seeds(self) -> Iterator[int]:
        """The seed of each run."""
        for index in range(self.share[0], self.runs, self.share[1]):
            yield derived_seed(self.seed, index)


@dataclass(frozen=True, slots=True)
class Campaign:
    """One kind of mistreatment.

    Attributes:
        about: one line for people.
        runs: how many make a whole campaign.
        slice_runs: how many belong to `make test`: a few seconds. 0: its tests are its own.
        run: does them; raises `Skip` where it cannot. Called in a process without other threads,
            so it may fork.
        slice_s: after so many no further run of those is begun, however slow the machine.
        alone: no other campaign of `make test` runs beside it (loop devices, FUSE).
    """

    name: str
    about: str
    runs: int
    slice_runs: int
    run: Callable[[Plan], Outcome]
    alone: bool = False
    slice_s: float = 30.0


def strike_each(
    plan: Plan,
    strike: Callable[[int], None],
    counts: Counter[str],
    seeds: Iterable[int] | None = None,
) -> Outcome:
    """Call `strike` with the seed of each run; whatever it raises is a violation of that run.

    `seeds` are for campaigns that do not draw theirs.
    """
    violations: list[Violation] = []
    runs = 0
    begun_s = time.monotonic()
    watch = _Leaks()
    for seed in plan.seeds() if seeds is None else seeds:
        if time.monotonic() >= plan.ends_at_s:
            break
        if runs and runs % _TOLD_EVERY == 0:
            passed_s = time.monotonic() - begun_s
            sys.stderr.write(f"{plan.campaign}: {runs:,} runs in {passed_s:.0f} s\n")
        runs += 1
        try:
            strike(seed)
            watch.check(runs)
        except Exception as error:
            violations.append(_violation(plan.campaign, seed, error))
            sys.stderr.write(f"{plan.campaign}: {violations[-1]}\n")
        if len(violations) >= plan.enough:
            break
    seconds = time.monotonic() - begun_s
    return Outcome(
        plan.campaign, plan.seed, runs, tuple(violations), seconds, counts=counts, held=watch.told()
    )


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up the shares of one campaign."""
    first = outcomes[0]
    return Outcome(
        first.campaign,
        first.seed,
        sum(outcome.runs for outcome in outcomes),
        tuple(violation for outcome in outcomes for violation in outcome.violations),
        max(outcome.seconds for outcome in outcomes),
        first.skipped,
        sum((outcome.counts for outcome in outcomes), Counter()),
        {bug: by for outcome in outcomes for bug, by in outcome.noticed.items()},
        max((o.held for o in outcomes if o.held), key=growth, default=None),
    )


def derived_seed(seed: int, index: int) -> int:
    """The seed of a campaign's run number `index`."""
    if index == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{index}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - SEED_BITS)


def replay_command(campaign: str, seed: int) -> str:
    return f"python -m tests.torture {campaign} --seed {seed} --runs 1"


def begin_process() -> None:
    """What each process does first that has stores in it: memory is as it is in an agent's.

    It logs nothing: what a store says of what is done to it is not what a person wants to read. Not
    in `__main__`: a process that is spawned does not find what is there.
    """
    give_back_large()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _violation(campaign: str, seed: int, error: Exception) -> Violation:
    said = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    return Violation(campaign, seed, f"{said or 'assertion failed'}{notes}\n  {_room()}")


def _room() -> str:
    """What disk images in memory depend on: without it, a disk fails by itself."""
    free = shutil.disk_usage(memory_dir() or tempfile.gettempdir()).free
    available = psutil.virtual_memory().available
    return f"free then: {available >> 20:,} MiB of memory, {free >> 20:,} MiB for disk images"


class _Leaks:
    """Watches that a process holds no more after a run than before the first one."""

    def __init__(self) -> None:
        self._least = self._warm = self._last = Held.now()

    def check(self, runs: int) -> None:
        """Compare with the least that was ever held.

        Raises:
            AssertionError: there is more, and it does not go away.
        """
        # What is closed by a thread or a kernel that is not done yet is no leak.
        ends_at_s = time.monotonic() + SETTLED_WITHIN_S
        while self._has_more(now := Held.now()) and time.monotonic() < ends_at_s:
            time.sleep(0.01)
        self._last = now
        assert not self._has_more(now), f"held were {self._least}, are {now}"
        descriptors = min(now.descriptors, self._least.descriptors)
        self._least = Held(descriptors, min(now.threads, self._least.threads), now.memory)
        if runs <= WARM_RUNS:
            self._warm = _settled(now) if runs == WARM_RUNS else now
        if now.memory - self._warm.memory > MEMORY_SLACK:
            self._last = now = _settled(now)
        grown = now.memory - self._warm.memory
        assert grown <= MEMORY_SLACK, f"memory: {self._warm} when it was warm, {now} now"

    def told(self) -> tuple[Held, Held]:
        return self._warm, _settled(self._last)

    def _has_more(self, now: Held) -> bool:
        return now.descriptors > self._least.descriptors or now.threads > self._least.threads


def _settled(held: Held) -> Held:
    """The same without the memory that nobody holds any more.

    A store that was closed is garbage with its 8 MiB of idle blocks, and in a cycle; and what the C
    library keeps of it is free, but not the system's.
    """
    gc.collect()
    give_back()
    return replace(held, memory=Held.now().memory)


def growth(held: tuple[Held, Held]) -> int:
    """Bytes of memory that came to be held between two moments."""
    return held[1].memory - held[0].memory
