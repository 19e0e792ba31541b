"""Bugs that the state machine, or a hostile reading, found in the store; each told as a story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from depot import ArtifactConfig, ArtifactHash, ArtifactStore, StoreOptions, init_datasets

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

    async def away(self, index: int) -> None:
        await asyncio.to_thread(self.datasets[index].rename, self.home / f"away-{index}")

    async def back(self, index: int) -> None:
        away = self.home / f"away-{index}"
        await asyncio.to_thread(away.rename, self.datasets[index])


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
