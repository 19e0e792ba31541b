"""When the benchmark takes a disk to have come to rest."""

from __future__ import annotations

from tests.benchmarks.raw import Discards

# As Linux 6.18 writes it: the last six fields are of discards and flushes.
DISKSTATS = """\
   7       0 loop0 11 0 28 1 0 0 0 0 3 1 1 0 0 0 0 0 0
 254       0 vda 91 5 2812 41 712 33 8104 95 2 180 236 9370351 0 14062869 9576459 12 99
"""


def test_only_disks_that_discard_are_waited_for() -> None:
    assert Discards.told_by(DISKSTATS) == Discards(running=2, ended=9370351)


def test_the_disks_of_this_machine_are_understood() -> None:
    before = Discards.now()
    assert before.running >= 0
    assert Discards.now().ended >= before.ended
