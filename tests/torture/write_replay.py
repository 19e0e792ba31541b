"""What any disk may hold when the power goes, rebuilt from a record of every write and flush.

A shutdown of the filesystem keeps what direct I/O already wrote, and knows no cache in the disk. So
here a calm life is lived on disks whose every write and flush is recorded, together with what was
acknowledged in between. Then the power goes at many points of that record: each disk keeps what it
was told to flush and any part of the rest, drawn for each disk by itself, and some writes are torn.
What is left is mounted, and judged by what had been acknowledged up to that point.
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

from tests.torture.bench import Bench, benches, listen, live_in_peace
from tests.torture.campaign import Campaign, Outcome, Plan, Skip, images_dir, strike_each
from tests.torture.child import Child, Tell
from tests.torture.disks import LoopDisk, copy_sparse, loop_device
from tests.torture.history import Event
from tests.torture.judge import judge_dead
from tests.torture.recorder import MARKS
from tests.torture.workload import Script, live
from tests.torture.write_log import SECTOR_BYTES, Kind, Record, decode_all, survivors

KINDS: Final = ("ext4", "xfs", "btrfs")
# btrfs counts on its superblock being written whole.
TEAR_BYTES: Final = {"ext4": SECTOR_BYTES, "xfs": SECTOR_BYTES, "btrfs": 4096}
STATES: Final = 20
_STEPS: Final = 6
_GOES_ON: Final = 0.3


def _run(plan: Plan) -> Outcome:
    if not os.access("/dev/fuse", os.W_OK):
        raise Skip("a recorded disk takes /dev/fuse")
    counts: Counter[str] = Counter()
    with benches(KINDS) as ready:
        return strike_each(plan, lambda seed: _strike(ready, seed, counts), counts)


def _strike(ready: dict[str, Bench], seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    bench = ready[rng.choice(KINDS)]
    with tempfile.TemporaryDirectory(prefix="torture-", dir=images_dir()) as root:
        records = _record(bench, Path(root), f"{seed}")
        replay = _Replay(bench, Path(root), records)
        for number, point in enumerate(_points(records, rng)):
            replay.advance(point)
            try:
                _judge(replay, rng, f"{seed}.{number}")
            except Exception as error:
                where = f"{bench.kind}, state {number}: after {point} of {len(records)} records"
                error.add_note(where)
                raise
            counts[f"states of {bench.kind}"] += 1
        counts["writes"] += sum(record.kind is Kind.WRITE for record in records)


def _judge(replay: _Replay, rng: random.Random, seed: str) -> None:
    replay.lose_power(rng)
    history = copy.deepcopy(replay.history)
    with replay.bench.mounted() as places:
        judge_dead(places, history)
        if rng.random() < _GOES_ON:
            live_in_peace(places, history, Script(seed, 1, calm=True))


def _points(records: Sequence[Record], rng: random.Random) -> list[int]:
    """Where the power goes: anywhere, or as soon as something was acknowledged."""
    told = [index + 1 for index, record in enumerate(records) if _acknowledges(record)]
    anywhere = [rng.randint(0, len(records)) for _ in range(STATES // 2)]
    return sorted([*anywhere, *rng.choices(told, k=STATES - len(anywhere))])


def _acknowledges(record: Record) -> bool:
    return record.kind is Kind.MARK and json.loads(record.content)["what"] in ("done", "copied")


# ---- recording


def _record(bench: Bench, root: Path, seed: str) -> list[Record]:
    """Live a calm life on recorded copies of the disks."""
    for disk in bench.disks:
        disk.restore()
    with _recorder(bench, root) as mirrored, ExitStack() as stack:
        recorded = [
            stack.enter_context(_on_another_device(disk, mirrored / disk.image.name))
            for disk in bench.disks
        ]
        with Bench(bench.kind, recorded, bench.founded).mounted() as places:
            marks = os.open(mirrored / MARKS, os.O_WRONLY)
            try:

                def body(tell: Tell) -> None:
                    script = Script(seed, _STEPS, calm=True)
                    live(places, history, script, partial(_tell_both, marks, tell))

                history = copy.deepcopy(bench.founded)
                listen(Child.fork(body), history)
            finally:
                os.close(marks)
    return list(decode_all((root / "log").read_bytes()))


def _tell_both(marks: int, tell: Tell, event: Event) -> None:
    # In the log before anything that follows it.
    os.write(marks, json.dumps(event).encode())
    tell(event)


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
    """

    def __init__(self, bench: Bench, root: Path, records: Sequence[Record]) -> None:
        self.bench = bench
        self.history = copy.deepcopy(bench.founded)
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

    def lose_power(self, rng: random.Random) -> None:
        """Put onto the disks what is left of all that."""
        tear_bytes = TEAR_BYTES[self.bench.kind]
        for disk, flushed, pending in zip(
            self.bench.disks, self._flushed, self._pending, strict=True
        ):
            copy_sparse(flushed, disk.image)
            _write(disk.image, survivors(pending, rng, tear_bytes=tear_bytes))


def _write(image: Path, writes: Sequence[Record]) -> None:
    fd = os.open(image, os.O_WRONLY)
    try:
        for write in writes:
            os.pwrite(fd, write.content, write.offset_bytes)
    finally:
        os.close(fd)


CAMPAIGN: Final = Campaign(
    name="write-replay",
    about=f"lives on recorded disks (ext4, xfs, btrfs), each cut at {STATES} points of the record",
    runs=250,
    slice_runs=3,
    run=_run,
    alone=True,
)
