"""Whether the numbers of the sleds' events go on in the journal without a hole: pure.

A sled numbers what happens there, from 1 on, in a log with a name (an epoch) that no other has.
Each number is told once: as an event, or among those that a gap says are missing.

Rules kept here:
- Up to where a log is told stands in the database beside the journal, and nothing signs it:
  whoever moves that has events left out. A number that is neither told nor said to be missing is a
  finding.
- Numbers are unknown only where entries are: in shards that are dropped, and before an export of
  one shard. That the database was put back explains none: what was told, and up to where, went back
  together.
- A log belongs to no id: a sled that has another one goes on counting.
- Nothing is made of the order: several coordinators tell of one sled, by clocks that differ.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.journal.findings import Finding
from coordinator.journal.values import GAP, LogEnd

_SOURCE: Final = '"source":{'


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What an entry tells: of these events of a log."""

    sled: str
    epoch: str
    first: int
    last: int


@dataclass(slots=True)
class _Run:
    """Numbers that were told, without a hole; and where.

    Attributes:
        index: of the entry that has the first one.
        begins_in: the part of the journal that the first one is in.
        ends_in: the one that the last one is in.
    """

    sled: str
    first: int
    last: int
    index: int
    begins_in: int
    ends_in: int

    def go_on(self, following: _Run) -> bool:
        """Take over the numbers of another one, if they follow; whether they do."""
        if following.first != self.last + 1:
            return False
        self.last, self.ends_in = following.last, following.ends_in
        return True


class SledNumbers:
    """Is told of each entry in turn, and says at the end which numbers were left out."""

    def __init__(self) -> None:
        # By epoch, in order; between two of them there is a hole.
        self._logs: dict[str, list[_Run]] = {}
        # Goes up where there are entries that nobody knows.
        self._part = 0
        self._again: list[Finding] = []

    def pass_over(self) -> None:
        """There are entries before the next one that nobody knows."""
        self._part += 1

    def take(self, index: int, content: str) -> None:
        """Read which numbers the next entry tells."""
        told = _numbers(content)
        if told is None:
            return
        log = self._logs.setdefault(told.epoch, [])
        run = _Run(told.sled, told.first, told.last, index, self._part, self._part)
        if log and log[-1].go_on(run):
            return  # as nearly always
        at = bisect_left(log, run.first, key=lambda each: each.first)
        if (at and log[at - 1].last >= run.first) or (at < len(log) and log[at].first <= run.last):
            what = f"tells {_those(told.first, told.last)} of sled {told.sled} once more"
            self._again.append(Finding(index, what))
            return
        log.insert(at, run)
        if at + 1 < len(log) and run.go_on(log[at + 1]):
            del log[at + 1]
        if at and log[at - 1].go_on(run):
            del log[at]

    def end(self, ends: Sequence[LogEnd]) -> Iterator[Finding]:
        """What is wrong.

        Args:
            ends: up to where the database says that logs are told, as it was before the journal
                was read.
        """
        yield from self._again
        for log in self._logs.values():
            yield from _holes(log)
        for end in ends:
            log = self._logs.get(end.epoch, [])
            last, part = (log[-1].last, log[-1].ends_in) if log else (0, 0)
            if end.sequence > last and part == self._part:
                left_out = _those(last + 1, end.sequence)
                what = f"{left_out} of sled {end.sled} count as told, and no entry tells of them"
                yield Finding(None, what)


def _holes(log: Sequence[_Run]) -> Iterator[Finding]:
    last, part = 0, 0
    for run in log:
        if run.first > last + 1 and run.begins_in == part:
            left_out = _those(last + 1, run.first - 1)
            what = f"comes after {left_out} of sled {run.sled}, which were left out"
            yield Finding(run.index, what)
        last, part = run.last, run.ends_in


def _those(first: int, last: int) -> str:
    return f"event {first}" if first == last else f"events {first} to {last}"


def _numbers(content: str) -> _Numbers | None:
    """Which numbers an entry tells, if any: of what somebody has changed none."""
    if _SOURCE not in content and GAP not in content:
        return None
    try:
        said = json.loads(content)
    except ValueError:
        return None
    match said:
        case {"source": {"epoch": str(epoch), "sequence": int(first)}}:
            last = first
        case {"kind": kind, "data": {"epoch": str(epoch), "first": int(first), "last": int(last)}}:
            if kind != GAP:
                return None
        case _:
            return None
    return _Numbers(str(said.get("sled")), epoch, first, last) if 0 < first <= last else None
