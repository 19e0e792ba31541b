"""Bugs that the state machine, or a hostile reading, found in the store; each told as a story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from depot import (
    ArtifactConfig,
    ArtifactHash,
    ArtifactStore,
    Generation,
    Put,
    StoreOptions,
    init_datasets,
)
from tests import ondisk
from tests.model.gated import WAIT_S, GatedSource

CONTENT = b"the bytes of an artifact"
ARTIFACT = ArtifactHash.of(CONTENT)


class Node:
    """Two datasets and a state directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.datasets = [home / "m2-a", home / "m2-b"]
        for path in self.datasets:
            path.mkdir()
        init_datasets(self.datasets)

    @asynccontextmanager
    async def store(self, **options: float) -> AsyncIterator[ArtifactStore]:
        opened = await ArtifactStore.open(
            self.datasets,
            state_dir=self.home / "state",
            options=StoreOptions(**options),  # type: ignore[arg-type]  # sizes are ints here
        )
        async with opened:
            yield opened

    def staged(self) -> list[Path]:
        return [path for dataset in self.datasets for path in ondisk.staged_files(dataset)]

    async def away(self, index: int) -> None:
        await asyncio.to_thread(self.datasets[index].rename, self.home / f"away-{index}")

    async def back(self, index: int) -> None:
        away = self.home / f"away-{index}"
        await asyncio.to_thread(away.rename, self.datasets[index])


@asynccontextmanager
async def streaming(put: Put) -> AsyncIterator[tuple[GatedSource, asyncio.Task[object]]]:
    """A put whose stream has begun and waits for its first byte."""
    source = GatedSource(asyncio.get_running_loop())
    async with asyncio.TaskGroup() as group, asyncio.timeout(WAIT_S):
        receiving = group.create_task(put.receive(source))
        await source.reading.wait()
        yield source, receiving


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread does that nobody awaits."""
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(condition):
            pass


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_config_that_is_remembered_is_brought_to_the_first_dataset_that_returns(
    node: Node,
) -> None:
    newer = ArtifactConfig.make(2, [ARTIFACT])
    async with node.store() as store:
        await store.put_config(ArtifactConfig.make(1, []))
        await node.away(1)
        await store.put_config(newer)
        await node.away(0)
        await store.check_datasets()

        await node.back(1)  # it missed generation 2, and the one that has it is still away
        await store.check_datasets()

        assert store.config() == newer


async def test_a_cancelled_put_of_unknown_length_keeps_no_space_reserved(node: Node) -> None:
    async with node.store() as store:
        await store.put_config(ArtifactConfig.make(1, [ARTIFACT]))
        async with store.begin_put(ARTIFACT, Generation(1), None) as put:
            async with streaming(put) as (source, receiving):
                receiving.cancel()
        source.send(CONTENT)  # the read that was under way still gets its bytes

        await until(lambda: not node.staged())
        await until(lambda: _reserved(store) == [0, 0])


async def test_a_cancelled_put_keeps_its_space_reserved_while_its_bytes_are_on_the_disk(
    node: Node,
) -> None:
    async with node.store() as store:
        await store.put_config(ArtifactConfig.make(1, [ARTIFACT]))
        async with store.begin_put(ARTIFACT, Generation(1), len(CONTENT)) as put:
            async with streaming(put) as (source, receiving):
                receiving.cancel()

        assert _reserved(store) == [len(CONTENT)] * 2

        source.send(CONTENT)
        await until(lambda: _reserved(store) == [0, 0])


def _reserved(store: ArtifactStore) -> list[int]:
    return [dataset.reserved_bytes for dataset in store.status().datasets]
