"""A node on two real directories: opened, written to, hurt, and read back without the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.config.ledger import LEDGER_NAME, Ledger, decode_ledger, encode_ledger
from depot.dataset.disk import Disk, system_disk
from depot.device.host import DeviceWorkers
from depot.initialise import init_datasets
from depot.mirrors.open_artifact import OpenArtifact
from depot.options import StoreOptions
from depot.store import ArtifactStore
from depot.streams.sources import Source
from depot.writing.stored import Stored
from tests import ondisk
from tests.store.faulty import WAIT_S, FaultyDisk

P = ParamSpec("P")
T = TypeVar("T")

MIB: Final = 1 << 20
SLED: Final = "sled-under-test"
A, B = 0, 1
"""The two datasets."""

ONE: Final = b"the first artifact" * 500
TWO: Final = b"the second artifact" * 700
THREE: Final = b"the third artifact" * 900


async def off_loop(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what blocks in a thread, as everybody has to."""
    return await asyncio.to_thread(function, *args, **kwargs)


def hash_of(content: bytes) -> ArtifactHash:
    return ArtifactHash.of(content)


def config(generation: int, *contents: bytes) -> ArtifactConfig:
    return ArtifactConfig.make(generation, map(hash_of, contents))


class BytesSource:
    """A body that is there at once, in pieces of `piece_bytes`; `error` comes instead of its end.

    Attributes:
        read_bytes: how much of it was taken.
    """

    def __init__(
        self, content: bytes, *, error: Exception | None = None, piece_bytes: int = MIB
    ) -> None:
        self._content = memoryview(content)
        self._error = error
        self._piece_bytes = piece_bytes
        self.read_bytes = 0

    def readinto(self, buffer: memoryview, /) -> int:
        part = self._content[self.read_bytes :][: min(len(buffer), self._piece_bytes)]
        if not part and self._error:
            raise self._error
        buffer[: len(part)] = part
        self.read_bytes += len(part)
        return len(part)

    def abort(self) -> None: ...


class GatedSource(BytesSource):
    """A body of which the first `before_bytes` come at once and the rest after `open_gate`."""

    def __init__(self, content: bytes, *, before_bytes: int = 0, **kwargs: Any) -> None:
        super().__init__(content, **kwargs)
        self._before_bytes = before_bytes
        self._reached = threading.Event()
        self._gate = threading.Event()
        self._aborted = False

    def readinto(self, buffer: memoryview, /) -> int:
        if self.read_bytes < self._before_bytes:
            return super().readinto(buffer[: self._before_bytes - self.read_bytes])
        self._reached.set()
        self._gate.wait(WAIT_S)
        if self._aborted:
            raise ConnectionAbortedError("the transfer was given up")
        return super().readinto(buffer)

    def abort(self) -> None:
        self._aborted = True
        self._gate.set()

    async def reached(self) -> None:
        assert await off_loop(self._reached.wait, WAIT_S), "nobody reads the body"

    def open_gate(self) -> None:
        self._gate.set()


@dataclass
class Node:
    """Two dataset directories and a state directory; the store on them is opened with `open`.

    Attributes:
        events: what the store said, as (kind, fields).
        workers: what the calls on a dataset run in.
        chained_digests: of which kind the block digests are that a put takes.
        group_commit: short puts are made durable together.
    """

    root: Path
    paths: list[Path]
    disks: dict[Path, FaultyDisk]
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    workers: DeviceWorkers = DeviceWorkers.THREAD
    chained_digests: bool = True
    group_commit: bool = True

    @classmethod
    def make(cls, root: Path) -> Node:
        paths = [root / "m2-a", root / "m2-b"]
        for path in paths:
            path.mkdir()
        init_datasets(paths, sled_id=SLED)
        return cls(root, paths, {path: FaultyDisk() for path in paths})

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    def disk(self, index: int) -> FaultyDisk:
        if self.workers is DeviceWorkers.PROCESS:
            pytest.skip("no fault can be planted in another process")
        return self.disks[self.paths[index]]

    @asynccontextmanager
    async def open(
        self, paths: Collection[Path] | None = None, **options: Any
    ) -> AsyncIterator[ArtifactStore]:
        if self.workers is DeviceWorkers.PROCESS and "device_timeout_s" in options:
            pytest.skip("made for hangs, which cannot be planted in another process")
        defaults: dict[str, Any] = {
            "device_workers": self.workers,
            "chained_digests": self.chained_digests,
            "group_commit": self.group_commit,
        }
        opening = ArtifactStore.open(
            list(paths or self.paths),
            state_dir=self.state_dir,
            options=StoreOptions(**defaults | options),
            on_event=lambda kind, fields: self.events.append((kind, fields)),
            disk_of=self._disk_of,
        )
        async with await opening as store:
            yield store

    def _disk_of(self, path: Path) -> Disk:
        if self.workers is DeviceWorkers.PROCESS:
            return system_disk(path)
        return self.disks.get(path) or FaultyDisk()

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    # Doing things to a dataset

    def away_path(self, index: int) -> Path:
        return self.paths[index].with_name(f"{self.paths[index].name}-away")

    async def take_away(self, index: int) -> None:
        await off_loop(self.paths[index].rename, self.away_path(index))

    async def bring_back(self, index: int) -> None:
        await off_loop(self.away_path(index).rename, self.paths[index])

    async def swap(self, store: ArtifactStore) -> None:
        """Have the disks change slots, and the store take both in.

        A disk is busy as long as the store's own descriptors of the slot it left are not closed.
        """
        for index in (A, B):
            await self.take_away(index)
        await store.check_datasets()
        for index in (A, B):
            await off_loop(self.away_path(index).rename, self.paths[1 - index])
        async with asyncio.timeout(WAIT_S):
            while states(store) != ["healthy", "healthy"]:
                await store.check_datasets()

    async def write_file(self, index: int, name: str, content: bytes) -> None:
        """Put a file there behind the store's back, also while the dataset is away."""

        def write() -> None:
            away = self.away_path(index)
            path = (away if away.exists() else self.paths[index]) / name
            path.unlink(missing_ok=True)
            path.write_bytes(content)

        await off_loop(write)

    async def write_ledger(self, index: int, ledger: Ledger) -> None:
        await self.write_file(index, LEDGER_NAME, encode_ledger(ledger))

    # Looking at a dataset

    def file(self, index: int, content: bytes) -> Path:
        return self.paths[index] / str(hash_of(content))

    async def read(self, index: int, content: bytes) -> bytes | None:
        """The file under the name of `content`."""
        path = self.file(index, content)
        return await off_loop(read_if_there, path)

    async def inode(self, index: int, content: bytes) -> int:
        return (await off_loop(self.file(index, content).stat)).st_ino

    async def names(self, index: int) -> set[str]:
        """The artifacts there."""
        return set(await off_loop(ondisk.artifact_files, self.paths[index]))

    async def leftovers(self) -> list[Path]:
        """Staged files on any dataset that is there."""

        def look() -> list[Path]:
            return [staged for path in self.paths for staged in ondisk.staged_files(path)]

        return await off_loop(look)

    async def ledger(self, index: int) -> Ledger:
        content = await off_loop((self.paths[index] / LEDGER_NAME).read_bytes)
        return decode_ledger(content)

    async def generation(self, index: int) -> int:
        return (await self.ledger(index)).rank.generation


async def put(
    store: ArtifactStore,
    content: bytes,
    *,
    generation: int = 1,
    source: Source | None = None,
    announced: bool = True,
    length_bytes: int | None = None,
) -> Stored:
    """Store `content`, or whatever `source` gives, under its name.

    The announced length is the content's, unless `length_bytes` says otherwise.
    """
    length = (length_bytes or len(content)) if announced else None
    async with store.begin_put(hash_of(content), Generation(generation), length) as admitted:
        return admitted.held or await admitted.receive(source or BytesSource(content))


async def put_short(
    store: ArtifactStore, artifact: ArtifactHash, generation: Generation, content: bytes
) -> Stored | None:
    """Store `content` with those that need no task each; None: it was not taken."""
    told: asyncio.Future[Stored | Exception | None] = asyncio.get_running_loop().create_future()

    def tell(outcome: Stored | Exception | None) -> None:
        if not told.done():
            told.set_result(outcome)

    if not store.short_puts.begin(artifact, generation, content, tell):
        return None
    outcome = await told
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def read_if_there(path: Path) -> bytes | None:
    """A file that may be deleted at any moment; None: it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


async def read_back(store: ArtifactStore, content: bytes) -> bytes:
    """Read the artifact named by `content` through the store."""
    with await store.open_artifact(hash_of(content)) as opened:
        return await read_opened(opened)


async def read_opened(opened: OpenArtifact) -> bytes:
    """Read all of an artifact that is open, wherever it is."""
    with opened.source(WAIT_S) as source:
        return await off_loop(_read_all, source)


def _read_all(source: Source) -> bytes:
    content, buffer = bytearray(), memoryview(bytearray(MIB))
    while count := source.readinto(buffer):
        content += buffer[:count]
    return bytes(content)


def copies(store: ArtifactStore) -> dict[ArtifactHash, int]:
    return dict(store.list_artifacts().copies)


def reserved_bytes(store: ArtifactStore) -> list[int]:
    return [dataset.reserved_bytes for dataset in store.status().datasets]


def used_bytes(store: ArtifactStore) -> list[int]:
    return [dataset.used_bytes for dataset in store.status().datasets]


def states(store: ArtifactStore) -> list[str]:
    return [dataset.state for dataset in store.status().datasets]


async def threads_end(prefix: str) -> None:
    """Wait until no thread whose name begins with `prefix` is left."""
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            await off_loop(thread.join, WAIT_S)
            assert not thread.is_alive(), thread.name
