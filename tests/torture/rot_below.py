"""Rot on the disk of a mounted dataset whose files memory still holds as they were.

A read through the page cache would find every byte right. So sectors are overwritten below the
filesystem after both copies were read, and are mapped half of the time, since what is mapped stays
in memory whatever is asked to be dropped. Whoever verifies a copy has to find what the disk holds
(B6), and heal it (B5).
"""

from __future__ import annotations

import asyncio
import mmap
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from depot.device.host import DeviceWorkers
from depot.store import ArtifactStore
from tests.memory_dir import memory_dir
from tests.store.builders import BytesSource, hash_of
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import Tell
from tests.torture.disks import loop_disks
from tests.torture.side_by_side import (
    CONTENT,
    ONE,
    SECTOR_BYTES,
    SECTORS,
    WHERE,
    Ours,
    choose,
    find_sectors,
    in_child,
)

IN_PROCESSES: Final = 0.2


@dataclass(frozen=True)
class _Harm:
    """What is to rot: bytes on the disk of each dataset.

    Attributes:
        mapped: the files are mapped into memory meanwhile.
        found_by: what verifies the copies then.
    """

    where: str
    places: Sequence[Sequence[int]]
    noise: bytes
    mapped: bool
    found_by: str
    workers: DeviceWorkers

    @classmethod
    def draw(cls, rng: random.Random, sectors: Sequence[dict[int, int]]) -> _Harm:
        where = rng.choice(WHERE)
        chosen = choose(rng, where)
        return cls(
            where,
            [[on[n] for n in numbers] for on, numbers in zip(sectors, chosen, strict=True)],
            rng.randbytes(SECTOR_BYTES),
            mapped=rng.random() < 0.5,
            found_by=rng.choice(["scrub", "sent again"]),
            workers=DeviceWorkers.PROCESS if rng.random() < IN_PROCESSES else DeviceWorkers.THREAD,
        )

    def do(self, images: Sequence[Path]) -> None:
        for image, places in zip(images, self.places, strict=True):
            with image.open("r+b") as file:
                for place in places:
                    file.seek(place)
                    file.write(self.noise)


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with (
        loop_disks(["ext4", "ext4"]) as disks,
        tempfile.TemporaryDirectory(dir=memory_dir()) as root,
    ):
        ours = Ours(disks, Path(root) / "state")
        ours.make()
        sectors = [find_sectors(image) for image in ours.images]
        return strike_each(plan, lambda seed: _strike(ours, sectors, seed, counts), counts)


def _strike(ours: Ours, sectors: Sequence[dict[int, int]], seed: int, counts: Counter[str]) -> None:
    harm = _Harm.draw(random.Random(seed), sectors)
    ours.restore()
    with ours.mounted() as paths:
        (told,) = in_child(partial(_live, ours, paths, harm))
    for what in (harm.where, harm.found_by, f"in a {harm.workers}"):
        counts[what] += 1
    counts["mapped"] += harm.mapped
    # Otherwise nothing that reads through the cache would be found out by this run.
    counts["still right in memory"] += told["warm"]
    bad = sum(map(bool, harm.places))
    assert told["quarantined"] == bad, f"B6 {told['quarantined']} of {bad} bad copies were found"
    healed = all(len(find_sectors(image)) == SECTORS for image in ours.images)
    can_be = harm.where != "both alike" or harm.found_by == "sent again"
    assert healed == can_be, f"B5 {harm.where}, {harm.found_by}: healed {healed}"


def _live(ours: Ours, paths: list[Path], harm: _Harm, tell: Tell) -> None:
    asyncio.run(_find_out(ours, paths, harm, tell))


async def _find_out(ours: Ours, paths: list[Path], harm: _Harm, tell: Tell) -> None:
    said: Counter[str] = Counter()
    files = [path / str(hash_of(CONTENT)) for path in paths]
    opening = ours.open(paths, lambda kind, _: said.update([kind]), device_workers=harm.workers)
    async with await opening as store:
        with ExitStack() as stack:
            if harm.mapped:
                await asyncio.to_thread(lambda: [stack.enter_context(_mapped(f)) for f in files])
            await asyncio.to_thread(_are_right, files)
            await asyncio.to_thread(harm.do, ours.images)
            warm = await asyncio.to_thread(_are_right, files)
            await _verify(store, harm.found_by)
        await store.remirror()
    tell({"what": "found", "warm": warm, "quarantined": said["quarantined"]})


async def _verify(store: ArtifactStore, found_by: str) -> None:
    if found_by == "scrub":
        await store.scrub()
        return
    async with store.begin_put(hash_of(CONTENT), ONE, len(CONTENT)) as put:
        if put.held is None:
            await put.receive(BytesSource(CONTENT))


def _are_right(files: Sequence[Path]) -> bool:
    return all(file.read_bytes() == CONTENT for file in files)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
        assert pages[:] == CONTENT  # each page is there from now on
        yield


CAMPAIGN: Final = Campaign(
    "rot-below",
    "sectors of a mounted disk rot, of files that memory still holds as they were",
    runs=500,
    slice_runs=2,
    run=_run,
    alone=True,
)
