"""A node of loop disks that every run begins with, and the calm lives that are lived on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from depot.initialise import init_datasets
from tests.torture.child import Child
from tests.torture.disks import LoopDisk, loop_disks
from tests.torture.history import History
from tests.torture.judge import Places, judge_settled
from tests.torture.workload import Script, live

_STATE_KIND: Final = "ext4"


@dataclass(frozen=True)
class Bench:
    """The disks of one node.

    Attributes:
        kind: the filesystem of the datasets.
        founded: what was acknowledged when their templates were kept.
    """

    kind: str
    disks: Sequence[LoopDisk]
    founded: History

    @property
    def places(self) -> Places:
        a, b, state = (disk.mount_point for disk in self.disks)
        return Places((a, b), state / "state")

    @contextmanager
    def mounted(self, *, without: LoopDisk | None = None) -> Iterator[Places]:
        """Mount what is on the disks for the block, all or all but one."""
        try:
            for disk in self.disks:
                if disk is not without:
                    disk.mount()
            yield self.places
        finally:
            for disk in self.disks:
                disk.unmount()


@contextmanager
def benches(kinds: Sequence[str]) -> Iterator[dict[str, Bench]]:
    """Make a node of disks of each kind, with some history that every run begins with.

    Raises:
        Skip: not possible on this machine.
    """
    with ExitStack() as stack:
        found = {}
        for kind in kinds:
            disks = stack.enter_context(loop_disks([kind, kind, _STATE_KIND]))
            bench = Bench(kind, disks, History())
            with bench.mounted() as places:
                found_node(places, bench.founded)
            for disk in disks:
                disk.keep_as_template()
            found[kind] = bench
        yield found


def found_node(places: Places, history: History) -> None:
    """Make datasets and live a first, calm life; then each dataset lacks an artifact."""
    init_datasets(places.datasets, sled_id="sled-under-torture")
    script = Script("founding", 12, calm=True)
    live_in_peace(places, history, script)
    keys = sorted(history.copies)
    for dataset, key in zip(places.datasets, keys, strict=False):
        history.take_away(dataset, key)


def live_in_peace(places: Places, history: History, script: Script) -> None:
    """Live a calm life to its end, and judge what it leaves.

    Raises:
        AssertionError: a rule was broken, or it did not come to its end.
    """
    listen(Child.fork(partial(live, places, history, script)), history)
    judge_settled(places, history)


def listen(child: Child, history: History) -> None:
    """Take in what a child tells, which has to come to its end.

    Raises:
        AssertionError: it did not, or told of a broken rule.
    """
    try:
        for event in child.rest():
            history.note(event)
        # A child that has closed its pipe is at its end.
        status = child.wait()
    finally:
        child.reap()
    assert status == 0, f"the process ended with {status}"
