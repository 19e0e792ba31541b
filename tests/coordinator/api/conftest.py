from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from tests.coordinator.running import client_of, coordinating
from tests.unit.fake_node import FakeNode


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Coordinator]:
    async with coordinating(tmp_path) as coordinator:
        yield coordinator


@pytest.fixture
async def client(running: Coordinator) -> AsyncIterator[CoordinatorClient]:
    async with client_of(running) as client:
        yield client


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node
