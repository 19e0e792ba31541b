"""What was measured, as values, and what it means. Nothing in here does I/O.

Rules kept here:
- Every comparison is of pairs: the n-th run of one side and the n-th of the other, one right after
  the other and in turn first, so that a machine that changes its mood changes it for both.
- A number comes with its spread: the median, the least and the most of all runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

MIB: Final = 1 << 20
KIB: Final = 1 << 10


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts.

    Attributes:
        name: of the number itself, as in "100 MiB/s".
        cost: of the processor time that it takes; empty where that says nothing.
        cost_scale: from CPU seconds for one of what is counted to `cost`.
    """

    name: str
    cost: str = ""
    cost_scale: float = 1.0


MIB_PER_S: Final = Unit("MiB/s", "s/GiB", 1024.0)
REQUESTS_PER_S: Final = Unit("/s", "us each", 1e6)
SECONDS: Final = Unit("s", "s/GiB", 1024.0)
MEBIBYTES: Final = Unit("MiB")
KIBIBYTES: Final = Unit("KiB")
MILLISECONDS: Final = Unit("ms")
CPU_PER_GIB: Final = Unit("CPU-s/GiB")


@dataclass(frozen=True, slots=True)
class Sample:
    """One run.

    Attributes:
        amount: of what the row's unit counts: MiB of artifact moved, requests answered.
        seconds: for how long.
        cpu_s: processor time of the server's processes.
    """

    amount: float
    seconds: float
    cpu_s: float | None = None

    @classmethod
    def of_bytes(cls, size_bytes: int, seconds: float, cpu_s: float | None = None) -> Self:
        return cls(size_bytes / MIB, seconds, cpu_s)

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the most of some numbers."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for the median: of the ratio where there is one, else of the value itself."""

    bound: float
    at_least: bool = True
    unit: str = ""

    def met_by(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g} {self.unit}".strip()


def at_most(bound: float, unit: Unit | None = None) -> Target:
    """A target from above."""
    return Target(bound, at_least=False, unit="" if unit is None else unit.name)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a row: what it is, and all its runs.

    Attributes:
        each: the number of every run, in their order.
        cpu: processor time for each unit of work, the median; see `Unit.cost`.
        memory: peak MiB of the server: all its processes, and the main one alone.
    """

    name: str = ""
    each: tuple[float, ...] = ()
    cpu: float | None = None
    memory: tuple[float, float] | None = None

    @property
    def spread(self) -> Spread | None:
        return Spread.of(self.each) if self.each else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        key: names the row in the JSON, for good.
        work: what was done, for people.
        unit: of the numbers of both sides.
        here: the agent, or what a row of its own is about.
        there: what did the same work beside it; without a name, nothing was to.
        ratios: of each pair of runs, here to there.
        note: what is missing and why, or what else there is to say.
    """

    key: str
    work: str
    unit: Unit
    here: Side
    there: Side = Side()
    ratios: tuple[float, ...] = ()
    target: Target | None = None
    note: str = ""

    @property
    def ratio(self) -> Spread | None:
        return Spread.of(self.ratios) if self.ratios else None

    @property
    def verdict(self) -> str:
        judged = self.ratio if self.there.name else self.here.spread
        if judged is None:
            return "not measured"
        if self.target is None:
            return ""
        return "met" if self.target.met_by(judged.median) else "missed"


Contender = Callable[[], Sample]
"""Does the work once."""


def alternate(
    rounds: int, ours: Contender | None, theirs: Contender | None
) -> tuple[list[Sample], list[Sample]]:
    """Let both run once in each round, in an order that turns around from round to round.

    Either may be missing: a program that is not there leaves the other one alone.
    """
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    order = [(run, samples) for run, samples in zip((ours, theirs), sides, strict=True) if run]
    for number in range(rounds):
        for run, samples in reversed(order) if number % 2 else order:
            samples.append(run())
    return sides


def side(name: str, samples: Sequence[Sample], unit: Unit) -> Side:
    """What some runs come to."""
    costs = [each.cpu_s / each.amount for each in samples if each.cpu_s is not None]
    return Side(
        name=name,
        each=tuple(each.rate for each in samples),
        cpu=statistics.median(costs) * unit.cost_scale if costs else None,
    )


def versus(
    key: str,
    work: str,
    runs: tuple[Sequence[Sample], Sequence[Sample]],
    against: str,
    *,
    unit: Unit = MIB_PER_S,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """A row that compares what `alternate` gave; either side may be empty, and `note` says why."""
    here, there = side("agent", runs[0], unit), side(against, runs[1], unit)
    pairs = zip(here.each, there.each, strict=True) if here.each and there.each else ()
    ratios = tuple(ours / theirs for ours, theirs in pairs)
    return Row(
        key=key,
        work=work,
        unit=unit,
        here=here,
        there=there,
        ratios=ratios,
        target=target,
        note=note,
    )


def alone(
    key: str,
    work: str,
    values: Sequence[float],
    unit: Unit,
    *,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """A row of numbers that stand for themselves."""
    here = Side(each=tuple(values))
    return Row(key=key, work=work, unit=unit, here=here, target=target, note=note)
