"""A whole coordinator, with SQLite and its staging on disk, in this process."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.config.loading import check_form
from coordinator.assembly import Coordinator, assembled
from coordinator.client import CoordinatorClient
from coordinator.database.database import Database
from coordinator.settings import COORDINATOR, DATABASE_FILE, CoordinatorSettings
from tests.coordinator.releases.builder import NOW_S

START_TIMEOUT_S: Final = 60


def settings(place: Path, **tables: object) -> CoordinatorSettings:
    """Settings of a coordinator below `place`, which does nothing that it is not told to do."""
    table = {
        "listen": "127.0.0.1:0",
        "drain_timeout_s": 0,
        "staging": {"path": str(place / "staging"), "quota": "64MiB"},
        "replication": {"activation": "manual"},
        "journal": {"gather_s": 3600},
        **tables,
    }
    made, problems = check_form(COORDINATOR, table)
    assert not problems, problems
    return made


@cache
def migrated() -> bytes:
    """The file of an empty database: migrating one takes longer than most tests."""

    async def migrate(path: Path) -> None:
        await (await Database.open(f"sqlite+aiosqlite:///{path}")).close()

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "empty.sqlite3"
        asyncio.run(migrate(path))
        return path.read_bytes()


def prepared(place: Path, **tables: object) -> CoordinatorSettings:
    """Settings, and the database that they name; in a thread."""
    made = settings(place, **tables)
    database = made.staging.path.parent / DATABASE_FILE
    database.parent.mkdir(parents=True, exist_ok=True)
    if not database.exists():
        database.write_bytes(migrated())
    return made


@asynccontextmanager
async def coordinating(place: Path, **tables: object) -> AsyncIterator[Coordinator]:
    """A coordinator that listens, with its duties."""
    made = await asyncio.to_thread(prepared, place, **tables)
    async with assembled(made, clock=lambda: NOW_S) as coordinator:
        await coordinator.listen()
        async with asyncio.TaskGroup() as group:
            tasks = coordinator.begin_duties(group)
            try:
                yield coordinator
            finally:
                await coordinator.drain()
                for task in tasks:
                    task.cancel()


@asynccontextmanager
async def client_of(coordinator: Coordinator) -> AsyncIterator[CoordinatorClient]:
    """A client of a running coordinator."""
    async with CoordinatorClient(coordinator.server.url) as client:
        yield client


class InThread:
    """A coordinator in a thread of its own, for commands that run an event loop in this one."""

    def __init__(self, place: Path, **tables: object) -> None:
        self.url = ""
        self._place = place
        self._tables = tables
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)

    async def _live(self) -> None:
        async with coordinating(self._place, **self._tables) as coordinator:
            self.url = coordinator.server.url
            self._loop = asyncio.get_running_loop()
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(START_TIMEOUT_S), "the coordinator did not start"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_TIMEOUT_S)
