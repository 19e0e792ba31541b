"""The same rot under our mirror on two plain filesystems, and under the mirror of a filesystem.

Sectors of a file are overwritten on the disks themselves, below both: on one disk, on both in
different sectors, on both in the same. Ours are two datasets on ext4, theirs is btrfs with
`-d raid1` over two disks. Then each is read past the cache and scrubbed, and the disks are looked
at again. What ours does wrong is a violation; what theirs does is said beside it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from depot.artifact import ArtifactConfig, Generation
from depot.config.keeper import EventSink
from depot.errors import NotFound
from depot.initialise import init_datasets
from depot.mirrors.open_artifact import OpenArtifact
from depot.options import StoreOptions
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from tests.memory_dir import memory_dir
from tests.store.builders import MIB, BytesSource, hash_of
from tests.torture.campaign import Campaign, Outcome, Plan, Skip, strike_each
from tests.torture.child import Child, Tell
from tests.torture.disks import LoopDisk, loop_device, loop_disks, skip_unless_possible
from tests.torture.history import Event

CONTENT: Final = random.Random(21).randbytes(3 * MIB)
SECTOR_BYTES: Final = 1024
SECTORS: Final = len(CONTENT) // SECTOR_BYTES
_SECTOR_OF: Final = {
    CONTENT[number * SECTOR_BYTES :][:SECTOR_BYTES]: number for number in range(SECTORS)
}
WHERE: Final = ("one disk", "both apart", "both alike")
ONE: Final = Generation(1)
OPTIONS: Final = StoreOptions(
    quota_bytes=16 * MIB, delete_grace_s=0.0, verify_reads=VerifyReads.ALWAYS
)
_BTRFS_BYTES: Final = 256 * MIB


class Theirs:
    """One btrfs over two loop devices, with one file."""

    def __init__(self, images: Sequence[Path], devices: Sequence[str], mount_point: Path) -> None:
        self.images = images
        self._devices = devices
        self._mount_point = mount_point
        self._kept = [image.with_suffix(".kept") for image in images]

    def make(self) -> None:
        _command("mkfs.btrfs", "-q", "-f", "-d", "raid1", "-m", "raid1", *self._devices)
        with self.mounted() as root:
            (root / "file").write_bytes(CONTENT)
        for image, kept in zip(self.images, self._kept, strict=True):
            _command("cp", "--sparse=always", str(image), str(kept))

    def restore(self) -> None:
        for image, kept in zip(self.images, self._kept, strict=True):
            # In place: the loop device has the file open.
            _command("cp", "--sparse=always", "--no-target-directory", str(kept), str(image))

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        options = ",".join(f"device={device}" for device in self._devices)
        _command("mount", "-t", "btrfs", "-o", options, self._devices[0], str(self._mount_point))
        try:
            yield self._mount_point
        finally:
            _command("umount", str(self._mount_point))

    def read(self) -> str:
        """How a read ends: right, wrong, or error."""
        with self.mounted() as root:
            try:
                return "right" if (root / "file").read_bytes() == CONTENT else "wrong"
            except OSError:
                return "error"

    def scrub(self) -> None:
        with self.mounted() as root:
            # Its exit status says that there was something to correct.
            command = ["btrfs", "scrub", "start", "-B", str(root)]
            subprocess.run(command, check=False, capture_output=True)


@contextmanager
def theirs() -> Iterator[Theirs]:
    """Make it for the block.

    Raises:
        Skip: not possible on this machine.
    """
    skip_unless_possible(["btrfs"])
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory_dir())))
        images = [root / "0.btrfs", root / "1.btrfs"]
        for image in images:
            with image.open("wb") as file:
                file.truncate(_BTRFS_BYTES)
        devices = [stack.enter_context(loop_device(image)) for image in images]
        mount_point = root / "mounted"
        mount_point.mkdir()
        found = Theirs(images, devices, mount_point)
        try:
            found.make()
        except subprocess.CalledProcessError as error:
            raise Skip(f"no btrfs over two disks here: {error.stderr}") from error
        yield found


def rot(image: Path, sectors: Sequence[int], noise: bytes) -> None:
    """Overwrite sectors of the file on a disk."""
    places = find_sectors(image)
    assert len(places) == SECTORS, f"{image}: {len(places)} of {SECTORS} sectors are there"
    with image.open("r+b") as file:
        for sector in sectors:
            file.seek(places[sector])
            file.write(noise)


def find_sectors(image: Path) -> dict[int, int]:
    """Where each sector of the file is on a disk, as far as it is there."""
    found: dict[int, int] = {}
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as disk:
        for at in range(0, len(disk), SECTOR_BYTES):
            sector = _SECTOR_OF.get(disk[at : at + SECTOR_BYTES])
            if sector is not None:
                found[sector] = at
    return found


class Ours:
    """Two datasets on ext4, with one artifact."""

    def __init__(self, disks: Sequence[LoopDisk], state_dir: Path) -> None:
        self._disks = disks
        self._state_dir = state_dir
        self.images = [disk.image for disk in disks]

    @contextmanager
    def mounted(self) -> Iterator[list[Path]]:
        with ExitStack() as stack:
            for disk in self._disks:
                disk.mount()
                stack.callback(disk.unmount)
            yield [disk.mount_point for disk in self._disks]

    def make(self) -> None:
        with self.mounted() as paths:
            init_datasets(paths, sled_id="sled-under-torture")
            in_child(lambda _tell: asyncio.run(self._fill(paths)))
        for disk in self._disks:
            disk.keep_as_template()

    def restore(self) -> None:
        for disk in self._disks:
            disk.restore()

    async def _fill(self, paths: list[Path]) -> None:
        async with await self.open(paths) as store:
            await store.put_config(ArtifactConfig.make(ONE, [hash_of(CONTENT)]))
            async with store.begin_put(hash_of(CONTENT), ONE, len(CONTENT)) as put:
                await put.receive(BytesSource(CONTENT))

    async def open(
        self, paths: list[Path], on_event: EventSink = lambda *_: None, **options: Any
    ) -> ArtifactStore:
        return await ArtifactStore.open(
            paths,
            state_dir=self._state_dir,
            options=replace(OPTIONS, **options),
            on_event=on_event,
        )

    def read_and_scrub(self) -> str:
        """How a read ends: right, wrong, or error; then scrub and heal."""
        with self.mounted() as paths:
            (told,) = in_child(partial(self._tell_read, paths))
        return str(told["read"])

    def _tell_read(self, paths: list[Path], tell: Tell) -> None:
        tell({"what": "read", "read": asyncio.run(self._read_and_scrub(paths))})

    async def _read_and_scrub(self, paths: list[Path]) -> str:
        async with await self.open(paths) as store:
            found = await _read(store)
            await store.scrub()
            await store.remirror()
        return found


async def _read(store: ArtifactStore) -> str:
    """Read as the repo depot does: where a copy fails, from the other, and from that again."""
    found = bytearray()
    failed: dict[int, int] = {}
    while len(found) < len(CONTENT):
        # Each may be bad elsewhere: what failed earlier is asked again further on.
        exclude = {dataset for dataset, offset in failed.items() if offset == len(found)}
        try:
            opened = await store.open_artifact(hash_of(CONTENT), exclude=exclude)
        except NotFound:
            return "error"
        try:
            with opened:
                await asyncio.to_thread(_read_on, opened, found)
        except OSError:
            failed[opened.dataset] = len(found)
    return "right" if found == CONTENT else "wrong"


def _read_on(opened: OpenArtifact, found: bytearray) -> None:
    assert opened.read is not None
    buffer = memoryview(bytearray(MIB))
    while count := opened.read(opened.fd, buffer, len(found)):
        found += buffer[:count]


def in_child(body: Callable[[Tell], None]) -> list[Event]:
    child = Child.fork(body)
    try:
        told = list(child.rest())
        status = child.wait()
    finally:
        child.reap()
    assert status == 0, f"the process ended with {status}"
    return told


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with theirs() as other, loop_disks(["ext4", "ext4"]) as disks:
        state_dir = other.images[0].parent / "state"
        ours = Ours(disks, state_dir)
        ours.make()
        return strike_each(plan, lambda seed: _strike(ours, other, seed, counts), counts)


def _strike(ours: Ours, other: Theirs, seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    where = rng.choice(WHERE)
    sectors = choose(rng, where)
    noise = rng.randbytes(SECTOR_BYTES)
    for side in (ours, other):
        side.restore()
        for image, chosen in zip(side.images, sectors, strict=True):
            rot(image, chosen, noise)
    read = {"ours": ours.read_and_scrub(), "btrfs": other.read()}
    other.scrub()
    for name, side in (("ours", ours), ("btrfs", other)):
        healed = all(len(find_sectors(image)) == SECTORS for image in side.images)
        counts[f"{where}: {name} read {read[name]}, {'healed' if healed else 'not healed'}"] += 1
        if name == "ours":
            assert read[name] != "wrong", "B2 a wrong byte was read"
            assert healed == (where != "both alike"), f"B5 {where}: healed {healed}"


def choose(rng: random.Random, where: str) -> list[list[int]]:
    """The sectors that rot on each disk; apart means in other blocks of 1 MiB."""
    per_block = MIB // SECTOR_BYTES
    one, two = rng.sample(range(SECTORS // per_block), 2)
    first = [one * per_block + n for n in rng.sample(range(per_block), rng.randint(1, 3))]
    if where == "both alike":
        return [first, first]
    second = [two * per_block + rng.randrange(per_block)] if where == "both apart" else []
    return rng.sample([first, second], 2)


def _command(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "LC_ALL": "C"})


CAMPAIGN: Final = Campaign(
    "side-by-side",
    "the same rot below our mirror on ext4 and below btrfs with raid1",
    runs=60,
    slice_runs=2,
    run=_run,
    alone=True,
)
