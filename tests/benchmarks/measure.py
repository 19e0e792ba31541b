"""What was measured, as values, and what it means. Nothing in here does I/O.

Rules kept here:
- Every comparison is of runs that alternated: the n-th run of one side with the n-th of the other,
  in turn first and second, so that a machine that changes its mood changes it for both.
- A number comes with its spread: the median, the least and the most of all runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: bytes of artifact moved, for how long, with how much CPU time of the server."""

    size_bytes: int
    seconds: float
    cpu_s: float | None = None

    @property
    def mib_per_s(self) -> float:
        return self.size_bytes / MIB / self.seconds

    @property
    def cpu_s_per_gib(self) -> float | None:
        return None if self.cpu_s is None else self.cpu_s / (self.size_bytes / GIB)


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
        return value >= self.bound if self.at_least else value < self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<'} {self.bound:g} {self.unit}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        key: names the row in the JSON, for good.
        work: what was done, for people.
        value: how fast (or how large), in `unit`; `each` is of every run, in their order.
        against: what did the same work beside it; `other` is how fast that was.
        ratio: of each pair of runs.
        note: what is missing and why, or what else there is to say.
    """

    key: str
    work: str
    value: Spread | None = None
    each: tuple[float, ...] = ()
    unit: str = "MiB/s"
    cpu_s_per_gib: float | None = None
    against: str = ""
    other: Spread | None = None
    other_each: tuple[float, ...] = ()
    other_cpu_s_per_gib: float | None = None
    ratio: Spread | None = None
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        judged = self.ratio if self.against else self.value
        if judged is None:
            return "not measured"
        return "met" if self.target.met_by(judged.median) else "missed"


Contender = Callable[[], Sample]
Runs = Mapping[str, list[Sample]]


def alternate(rounds: int, contenders: Mapping[str, Contender]) -> Runs:
    """Let everyone run once in each round, in an order that turns around from round to round."""
    runs: dict[str, list[Sample]] = {name: [] for name in contenders}
    for number in range(rounds):
        order = list(contenders)
        for name in reversed(order) if number % 2 else order:
            runs[name].append(contenders[name]())
    return runs


def alone(key: str, work: str, samples: Sequence[Sample], note: str = "") -> Row:
    """A row for something that is not compared."""
    return Row(
        key=key,
        work=work,
        value=_spread(samples),
        each=_rates(samples),
        cpu_s_per_gib=_cpu(samples),
        note=note,
    )


def versus(
    key: str,
    work: str,
    ours: Sequence[Sample],
    against: str,
    theirs: Sequence[Sample],
    *,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """A row that compares; either side may be empty, and `note` says why."""
    pairs = zip(ours, theirs, strict=True) if ours and theirs else ()
    ratios = [one.mib_per_s / other.mib_per_s for one, other in pairs]
    return Row(
        key=key,
        work=work,
        value=_spread(ours),
        each=_rates(ours),
        cpu_s_per_gib=_cpu(ours),
        against=against,
        other=_spread(theirs),
        other_each=_rates(theirs),
        other_cpu_s_per_gib=_cpu(theirs),
        ratio=Spread.of(ratios) if ratios else None,
        target=target,
        note=note,
    )


def _rates(samples: Sequence[Sample]) -> tuple[float, ...]:
    return tuple(sample.mib_per_s for sample in samples)


def _spread(samples: Sequence[Sample]) -> Spread | None:
    return Spread.of(_rates(samples)) if samples else None


def _cpu(samples: Sequence[Sample]) -> float | None:
    known = [cpu for sample in samples if (cpu := sample.cpu_s_per_gib) is not None]
    return statistics.median(known) if known else None
