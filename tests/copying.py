"""A sled that copies: a real store on two datasets, real peers, and every way to look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.config.settings import DEFAULT_SOURCES
from agent.copies.lineup import RetryPolicy
from agent.copies.manager import CopyManager, CopyOptions, CopyRecord
from agent.copies.networks import AllowedNetworks
from agent.copies.peers import PeerFetcher, PeerLimits
from agent.copies.resolver import Lookup
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import DepotError
from depot.initialise import init_datasets
from depot.options import StoreOptions
from depot.store import ArtifactStore
from depot.streams.budget import Budget

CONTENT = bytes(range(256)) * 8000  # enough to be read past the HTTP library
ARTIFACT = ArtifactHash.of(CONTENT)
WRONG = CONTENT[:-1] + b"!"
OTHER = ArtifactHash.of(b"other")
UNWANTED = ArtifactHash.of(b"unwanted")
ONE = Generation(1)
MAX_BYTES = 4 << 20

NETWORKS = AllowedNetworks.of(DEFAULT_SOURCES)
PATIENT = PeerLimits(connect_timeout_s=30, idle_timeout_s=30, max_artifact_size_bytes=MAX_BYTES)
IMPATIENT = PeerLimits(
    connect_timeout_s=0.7,
    idle_timeout_s=0.7,
    min_bytes_per_s=10_000,
    rate_window_s=0.7,
    max_artifact_size_bytes=MAX_BYTES,
)
ONE_BY_ONE = CopyOptions(max_sources=1)
RETRY = RetryPolicy(max_tries=2, first_delay_s=0.01, max_delay_s=0.02)


@dataclass
class Sled:
    """A real store on two datasets, and the copies into it."""

    store: ArtifactStore
    datasets: Sequence[Path]
    copies: CopyManager = field(init=False)
    owner: asyncio.Task[None] = field(init=False)
    events: list[tuple[str, Mapping[str, object]]] = field(default_factory=list)
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def on_event(self, kind: str, fields: Mapping[str, object]) -> None:
        self.events.append((kind, fields))
        self.happened.set()

    async def start(self, *urls: str, sha256: ArtifactHash = ARTIFACT) -> str:
        return await self.copies.start(sha256, ONE, urls)

    async def outcome(self, copy_id: str) -> CopyRecord:
        """The copy's record, once it has ended."""
        while (record := self.copies.get(copy_id)).state == "running":
            self.happened.clear()
            await self.happened.wait()
        return record

    async def copy(self, *urls: str) -> CopyRecord:
        """The copy's record, once it was refused, failed or succeeded."""
        try:
            return await self.outcome(await self.start(*urls))
        except DepotError:
            return self.copies.list()[-1]

    async def stored(self) -> list[bytes | None]:
        """What each dataset has under the artifact's name."""
        return await asyncio.to_thread(lambda: [content_of(path) for path in self.datasets])

    async def assert_nothing_is_left(self) -> None:
        """No artifact, no staged file, no reservation."""
        assert await self.stored() == [None, None]
        assert await asyncio.to_thread(staged_files, self.datasets) == []
        for status in self.store.status().datasets:
            assert (status.reserved_bytes, status.used_bytes) == (0, 0)

    def assert_failed(self, record: CopyRecord, *reasons: str) -> None:
        """The record, the event and nobody's imagination say why."""
        assert record.state == "failed"
        assert record.finished_at is not None
        kind, fields = self.events[-1]
        assert kind == "copy_failed"
        assert fields["copy_id"] == record.copy_id
        assert fields["error"] == record.error
        for reason in reasons:
            assert reason in str(record.error)


def content_of(dataset: Path) -> bytes | None:
    file = dataset / str(ARTIFACT)
    return file.read_bytes() if file.exists() else None


def staged_files(datasets: Sequence[Path]) -> list[Path]:
    return [file for dataset in datasets for file in (dataset / ".sled-depot/staging").iterdir()]


def prepare(root: Path) -> list[Path]:
    datasets = [root / "a", root / "b"]
    for path in [*datasets, root / "state"]:
        path.mkdir()
    init_datasets(datasets)
    return datasets


@asynccontextmanager
async def sled_at(
    root: Path,
    limits: PeerLimits = PATIENT,
    *,
    wanted: Sequence[ArtifactHash] | None = (ARTIFACT, OTHER),
    quota_bytes: int = 64 << 20,
    max_concurrent: int = 8,
    max_finished: int = 1000,
    lookup: Lookup | None = None,
    retry: RetryPolicy = RETRY,
    bounds: CopyOptions | None = None,
    heal_budget: Budget | None = None,
) -> AsyncIterator[Sled]:
    """A sled whose config has `wanted`; no config when None."""
    datasets = await asyncio.to_thread(prepare, root)
    options = StoreOptions(quota_bytes=quota_bytes, max_artifact_size_bytes=MAX_BYTES)
    store = await ArtifactStore.open(datasets, state_dir=root / "state", options=options)
    async with (
        store,
        PeerFetcher(NETWORKS, limits, lookup=lookup) as fetcher,
        asyncio.TaskGroup() as group,
    ):
        if wanted is not None:
            await store.put_config(ArtifactConfig.make(1, wanted))
        sled = Sled(store, datasets)
        bounds = replace(
            bounds or ONE_BY_ONE,
            max_concurrent=max_concurrent,
            max_finished=max_finished,
            retry=retry,
        )
        sled.copies = CopyManager(
            store, fetcher, bounds, on_event=sled.on_event, heal_budget=heal_budget
        )
        sled.owner = group.create_task(sled.copies.run())
        await asyncio.sleep(0)  # which begins it
        try:
            yield sled
        finally:
            await sled.copies.stop(0)


async def lead_outside(_host: str, _port: int) -> Sequence[str]:
    """A resolver whose every name leads where no copy may come from."""
    return ["192.0.2.1", "::ffff:10.0.0.1", "0.0.0.0"]


async def move_on(sled: Sled, wanted: Sequence[ArtifactHash]) -> ArtifactConfig:
    config = ArtifactConfig.make(2, wanted)
    await sled.store.put_config(config)
    return config
