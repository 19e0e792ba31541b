"""What any disk may hold when the power goes, rebuilt from a record of every write and flush.

A shutdown of the filesystem keeps what direct I/O already wrote, and knows no cache in the disk. So
here a calm life is lived on disks whose every write and flush is recorded, together with what was
acknowledged in between. Then the power goes at many points of that record: each disk keeps what it
was told to flush and any part of the rest, drawn for each disk by itself, and some writes are torn.
What is left is mounted, and judged by what had been acknowledged up to that point. A few lives of
each filesystem, those of a whole campaign, are cut at every point there is, where also all of what
was written until then is judged: every prefix of the record.

In some lives one dataset's disk dies before: it answers nothing but EIO from a call that is drawn,
and the store goes on with the other.
"""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.memory_dir import memory_dir
from tests.torture.bench import Bench, benches, listen, live_in_peace
from tests.torture.campaign import (
    SEED_BITS,
    Campaign,
    Outcome,
    Plan,
    Skip,
    strike_each,
)
from tests.torture.child import Child, Tell
from tests.torture.cutting import CutPoint, CuttingDisk
from tests.torture.disks import LoopDisk, NotMountable, copy_sparse, loop_device
from tests.torture.history import Event, History
from tests.torture.judge import Places, judge_dead
from tests.torture.recorder import DEATH, MARKS
from tests.torture.workload import Script, live
from tests.torture.write_log import Kind, Record, decode_all, survivors

KINDS: Final = ("ext4", "xfs", "btrfs")
# btrfs counts on each copy of its superblock being written whole.
WHOLE: Final = {"btrfs": tuple(range(at, at + 4096) for at in (64 << 10, 64 << 20))}
STATES: Final = 20
RUNS: Final = 250
CUT_EVERYWHERE: Final = tuple(number for number, _ in enumerate(KINDS, start=1) for _ in range(3))
"""What stands above the usual bits of the seeds of a whole campaign's second run and next ones: the
life is one on that kind of filesystem, counted from 1, and is cut at every point."""
_STEPS: Final = 6
_DISK_DIES: Final = 0.4
_CALLS: Final = 60
_GOES_ON: Final = 0.3


def _run(plan: Plan) -> Outcome:
    if not os.access("/dev/fuse", os.W_OK):
        raise Skip("a recorded disk takes /dev/fuse")
    counts: Counter[str] = Counter()
    with benches(KINDS) as ready:
        return strike_each(plan, lambda seed: _strike(ready, seed, counts), counts, seeds_of(plan))


def seeds_of(plan: Plan) -> Iterator[int]:
    """The seed of each run; in a whole campaign some are of lives that are cut everywhere."""
    turn, turns = plan.share
    for number, seed in enumerate(plan.seeds()):
        index = turn + number * turns
        everywhere = plan.runs >= RUNS and 1 <= index <= len(CUT_EVERYWHERE)
        yield seed | CUT_EVERYWHERE[index - 1] << SEED_BITS if everywhere else seed


def kind_cut_everywhere(seed: int) -> str | None:
    """The filesystem of a life that is cut at every point; None: it is cut at some."""
    number = seed >> SEED_BITS
    return KINDS[number - 1] if 1 <= number <= len(KINDS) else None


def _strike(ready: dict[str, Bench], seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    everywhere = kind_cut_everywhere(seed)
    bench = ready[everywhere or rng.choice(KINDS)]
    with tempfile.TemporaryDirectory(prefix="torture-", dir=memory_dir()) as root:
        life = _Life(rng, f"{seed}")
        counts["disks died"] += life.dying is not None
        records = _record(bench, Path(root), life)
        replay = _Replay(bench, Path(root), records)
        points = every_point(records) if everywhere else _points(records, rng)
        for number, (point, all_kept) in enumerate(points):
            replay.advance(point)
            try:
                mounted = _judge(replay, rng, f"{seed}.{number}", all_kept=all_kept)
            except Exception as error:
                where = f"{bench.kind}, state {number}: after {point} of {len(records)} records"
                error.add_note(f"{where}, nothing lost" if all_kept else where)
                raise
            counts[f"states of {bench.kind}" if mounted else "states torn beyond mounting"] += 1
            counts["prefixes"] += all_kept
        counts["lives cut everywhere"] += everywhere is not None
        counts["writes"] += sum(record.kind is Kind.WRITE for record in records)


def _judge(replay: _Replay, rng: random.Random, seed: str, *, all_kept: bool) -> bool:
    """Judge what is left after a power cut now; False when it could not even be mounted."""
    replay.lose_power(rng, all_kept=all_kept)
    history = copy.deepcopy(replay.history)
    try:
        with replay.bench.mounted() as places:
            judge_dead(places, history)
            if rng.random() < _GOES_ON:
                live_in_peace(places, history, Script(seed, 1, calm=True))
    except NotMountable:
        # A torn write may be more than a filesystem bears; then there is nothing to judge.
        if not replay.torn:
            raise
        return False
    return True


def every_point(records: Sequence[Record]) -> list[tuple[int, bool]]:
    """Every point, with what is drawn, and with all that was written; True: with that, once."""
    points = [(0, True), (0, False)]
    for index, record in enumerate(records):
        # A flush writes nothing and tells nothing: all that was written was judged before.
        points += [(index + 1, True)] * (record.kind is not Kind.FLUSH) + [(index + 1, False)]
    return points


def _points(records: Sequence[Record], rng: random.Random) -> list[tuple[int, bool]]:
    """Where the power goes: anywhere, or as soon as something was acknowledged."""
    told = [index + 1 for index, record in enumerate(records) if _acknowledges(record)]
    points = [rng.randint(0, len(records)) for _ in range(STATES)]
    for index in range(0, STATES, 2) if told else ():
        points[index] = rng.choice(told)
    return [(point, False) for point in sorted(points)]


def _acknowledges(record: Record) -> bool:
    return record.kind is Kind.MARK and json.loads(record.content)["what"] in ("done", "copied")


# ---- recording


class _Life:
    """What is recorded: a calm life, or one in which a disk dies.

    Attributes:
        dying: the number of that disk.
    """

    def __init__(self, rng: random.Random, seed: str) -> None:
        self._seed = seed
        self.dying = rng.randrange(2) if rng.random() < _DISK_DIES else None
        self._at_call = rng.randint(1, _CALLS)
        self._after_call = rng.random() < 0.5

    def live(self, places: Places, history: History, controls: Path, tell: Tell) -> None:
        """In the child: live, with the log being told of everything too."""
        marks, death = (os.open(controls / name, os.O_WRONLY) for name in (MARKS, DEATH))

        def tell_both(event: Event) -> None:
            # In the log before anything that follows it.
            os.write(marks, json.dumps(event).encode())
            tell(event)

        point = CutPoint(lambda: os.write(death, f"{self.dying}".encode()), after=self._after_call)
        script = Script(self._seed, _STEPS, calm=True)
        if self.dying is not None:
            point.arm(self._at_call)
            script = Script(self._seed, 2 * _STEPS, disk_of=lambda _: CuttingDisk(point))
        live(places, history, script, tell_both)


def _record(bench: Bench, root: Path, life: _Life) -> list[Record]:
    """Live a life on recorded copies of the disks."""
    for disk in bench.disks:
        disk.restore()
    with _recorder(bench, root) as shown, ExitStack() as stack:
        recorded = [
            stack.enter_context(_on_another_device(disk, shown / disk.image.name))
            for disk in bench.disks
        ]
        history = copy.deepcopy(bench.founded)
        with Bench(bench.kind, recorded, history).mounted() as places:
            listen(Child.fork(partial(life.live, places, history, shown)), history)
    return list(decode_all((root / "log").read_bytes()))


@contextmanager
def _recorder(bench: Bench, root: Path) -> Iterator[Path]:
    """Show the disks' images at the yielded path, where all that happens to them is recorded."""
    shown = root / "shown"
    shown.mkdir()
    images = [str(disk.image) for disk in bench.disks]
    command = [sys.executable, "-m", "tests.torture.recorder", str(shown), str(root / "log")]
    with subprocess.Popen([*command, *images], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        if not server.stdout.readline():
            raise Skip("no FUSE here")
        try:
            yield shown
        finally:
            subprocess.run(["umount", str(shown)], check=True)


@contextmanager
def _on_another_device(disk: LoopDisk, image: Path) -> Iterator[LoopDisk]:
    with loop_device(image) as device:
        yield LoopDisk(disk.kind, image, device, disk.mount_point)


# ---- replaying


class _Replay:
    """The disks at a point of the record.

    Attributes:
        history: what had been told up to that point.
        torn: some write was torn when the power went.
    """

    def __init__(self, bench: Bench, root: Path, records: Sequence[Record]) -> None:
        self.bench = bench
        self.history = copy.deepcopy(bench.founded)
        self.torn = False
        self._records = records
        self._at = 0
        self._pending: list[list[Record]] = [[] for _ in bench.disks]
        self._flushed = [root / f"flushed-{number}" for number, _ in enumerate(bench.disks)]
        for disk, image in zip(bench.disks, self._flushed, strict=True):
            assert disk.template is not None
            copy_sparse(disk.template, image)

    def advance(self, point: int) -> None:
        """Let everything up to a point of the record happen."""
        for record in self._records[self._at : point]:
            match record.kind:
                case Kind.WRITE:
                    self._pending[record.disk].append(record)
                case Kind.FLUSH:
                    _write(self._flushed[record.disk], self._pending[record.disk])
                    self._pending[record.disk].clear()
                case Kind.MARK:
                    self.history.note(json.loads(record.content))
        self._at = point

    def lose_power(self, rng: random.Random, *, all_kept: bool) -> None:
        """Put onto the disks what is left of all that: everything, or what is drawn."""
        whole = WHOLE.get(self.bench.kind, ())
        self.torn = False
        for disk, flushed, pending in zip(
            self.bench.disks, self._flushed, self._pending, strict=True
        ):
            copy_sparse(flushed, disk.image)
            left = pending if all_kept else survivors(pending, rng, whole=whole)
            self.torn |= any(write not in pending for write in left)
            _write(disk.image, left)


def _write(image: Path, writes: Sequence[Record]) -> None:
    fd = os.open(image, os.O_WRONLY)
    try:
        for write in writes:
            os.pwrite(fd, write.content, write.offset_bytes)
    finally:
        os.close(fd)


CAMPAIGN: Final = Campaign(
    name="write-replay",
    about=f"lives on recorded disks (ext4, xfs, btrfs), cut at {STATES} of its points, or at all",
    runs=RUNS,
    slice_runs=3,
    run=_run,
    alone=True,
)
