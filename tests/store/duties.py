"""A store that does by itself what is due, and what it says of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from depot.healing.healer import Peers
from depot.options import StoreOptions
from depot.store import ArtifactStore
from tests.store.builders import Node
from tests.store.faulty import WAIT_S

PeersOf = Callable[[ArtifactStore], Peers | None]


class Happenings:
    """What a store said, to be waited for."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, object]]] = []
        self._said = asyncio.Event()

    def __call__(self, kind: str, fields: Mapping[str, object]) -> None:
        self.events.append((kind, fields))
        self._said.set()

    def of(self, kind: str, **about: str) -> list[Mapping[str, object]]:
        said = [fields for each, fields in self.events if each == kind]
        return [fields for fields in said if about.items() <= fields.items()]

    async def wait_for(self, kind: str, count: int = 1, **about: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.of(kind, **about)) < count:
                self._said.clear()
                await self._said.wait()


@asynccontextmanager
async def running(
    node: Node, peers_of: PeersOf = lambda _: None, **options: Any
) -> AsyncIterator[tuple[ArtifactStore, Happenings]]:
    """A store whose duties run."""
    happened = Happenings()
    opening = ArtifactStore.open(
        node.paths,
        state_dir=node.state_dir,
        options=StoreOptions(**options),
        on_event=happened,
        disk_of=node.disks.__getitem__,
    )
    async with await opening as store:
        duties = asyncio.ensure_future(store.run_duties(peers_of(store)))
        try:
            yield store, happened
        finally:
            duties.cancel()
            with suppress(asyncio.CancelledError):
                await duties


async def done_at_the_start(store: ArtifactStore, happened: Happenings) -> None:
    """Wait until whatever a start looks at was looked at: then nothing else wakes the healer."""
    await store.start_scrub()
    await happened.wait_for("scrub_finished", 2)
