"""The fleet's database, published while coordinators are at work on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import text

from agent.snapshots.databases import require_sound
from agent.snapshots.errors import LibraryMissing, Unfit
from agent.snapshots.files import FileArchive
from coordinator.database import generation
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.errors import SnapshotRunning
from coordinator.snapshots import postgres
from coordinator.snapshots.copying import workshop
from tests.coordinator.database.making import opened
from tests.coordinator.database.test_migrations import engine_for
from tests.coordinator.postgres import PostgresServer
from tests.coordinator.snapshots.making import (
    downloaded,
    publish,
    raise_by_one,
    started_from,
    told,
)
from tests.needs import Need, lack

WRITERS: Final = 4
SNAPSHOTS: Final = 2


class Hammer:
    """Coordinators that change one database without a pause.

    Attributes:
        generation: the highest one that is known to be committed.
    """

    def __init__(self, url: str) -> None:
        self.generation = 1
        self._url = url
        self._moved = asyncio.Condition()

    async def _write(self) -> None:
        async with await opened(self._url) as database:
            while True:
                done = await database.run(raise_by_one)
                async with self._moved:
                    self.generation = max(self.generation, done)
                    self._moved.notify_all()

    async def moved(self, more: int) -> int:
        """Wait until so many more changes are committed; the generation they led to."""
        async with asyncio.timeout(60), self._moved:
            wanted = self.generation + more
            await self._moved.wait_for(lambda: self.generation >= wanted)
            return self.generation

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(self._write()) for _ in range(WRITERS)]
            try:
                yield
            finally:
                for writer in writers:
                    writer.cancel()


async def test_a_snapshot_under_four_writers_is_sound_and_a_prefix_of_what_was_committed(
    url: str, server: PostgresServer | None, archive: FileArchive, tmp_path: Path
) -> None:
    hammer = Hammer(url)
    async with hammer.at_work():
        for number in range(SNAPSHOTS):
            before = await hammer.moved(6)
            await asyncio.to_thread(publish, archive, url, tmp_path, compressed=number % 2 == 1)
            after = await hammer.moved(1)
            file = await asyncio.to_thread(downloaded, archive, tmp_path / f"copy-{number}")
            if server is None:
                found = await asyncio.to_thread(require_sound, file)
                assert found == "Database integrity check: ok"
            async with await started_from(file, server) as copy:
                reached = int(await copy.run(generation.read))
                # Each change is a number and what was told of it: both, or neither.
                assert await copy.run(told) == list(range(2, reached + 1))
            # The last ones may have been committed before their writers could say so.
            assert before <= reached <= after + WRITERS


async def test_only_the_newest_versions_stay(
    url: str, database: Database, archive: FileArchive, tmp_path: Path
) -> None:
    for _ in range(2):
        await database.run(raise_by_one)
        await asyncio.to_thread(publish, archive, url, tmp_path, keep=2)
    published = await asyncio.to_thread(publish, archive, url, tmp_path, keep=2)
    kept = await asyncio.to_thread(archive.versions, "fleet")
    assert len(kept) == 2
    assert kept[0].version == published.head.version
    assert len(published.left) == 1


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_nothing_is_left_of_the_copy_nor_of_what_a_killed_one_left(
    url: str, archive: FileArchive, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    (work / "half").mkdir(parents=True)
    (work / "copy.sqlite3").write_bytes(b"half of a copy")
    publish(archive, url, tmp_path)
    assert [each.name for each in work.iterdir()] == ["lock"]


def test_one_snapshot_at_a_time_is_made_on_one_machine(tmp_path: Path) -> None:
    with workshop(tmp_path / "work"), pytest.raises(SnapshotRunning):  # noqa: SIM117
        with workshop(tmp_path / "work"):
            pass


def test_root_leaves_nothing_behind_that_the_coordinator_cannot_open(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        lack(Need.ROOT, "only root can give a directory to another user")
    its = tmp_path / "its"
    its.mkdir()
    os.chown(its, 54321, 54321)
    with pytest.raises(PermissionError, match="run this as the user that owns it, 54321"):  # noqa: SIM117
        with workshop(its / "work"):
            pass
    assert list(its.iterdir()) == []


@pytest.mark.parametrize("server", ["sqlite"], indirect=True)
def test_a_database_that_is_damaged_is_not_published(
    url: str, archive: FileArchive, tmp_path: Path
) -> None:
    file = tmp_path / "fleet.sqlite3"
    content = bytearray(file.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    file.write_bytes(content)
    with pytest.raises(Unfit):
        publish(archive, url, tmp_path)
    assert archive.versions("fleet") == []


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_missing_program_is_named(
    url: str, archive: FileArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LibraryMissing, match=r"psql is not installed here.*postgresql-client"):
        publish(archive, url, tmp_path)


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
def test_a_dump_that_ends_half_way_with_status_0_is_not_published(
    url: str, archive: FileArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    postgres.dump(parse_url(url), whole, compressed=False)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/pg_dump"
    half = whole.stat().st_size // 2
    program.write_text(
        "#!/bin/sh\nfor each; do case $each in\n"
        f'--file=*) head -c {half} {whole} > "${{each#--file=}}"\n'
        ";; esac; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(Unfit, match="pg_restore ended with status"):
        publish(archive, url, tmp_path)
    assert archive.versions("fleet") == []


@pytest.mark.parametrize("server", ["postgresql"], indirect=True)
async def test_a_table_that_somebody_keeps_locked_is_not_waited_for_for_ever(
    url: str, tmp_path: Path
) -> None:
    engine = await engine_for(url)
    async with engine.begin() as connection:
        await connection.execute(text("LOCK TABLE sleds IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(Unfit, match=r"LOCK TABLE public\.sleds"):
            await asyncio.to_thread(
                postgres.dump, parse_url(url), tmp_path / "dump", compressed=True, lock_wait_s=0.1
            )
    await engine.dispose()


def test_a_dump_that_does_not_grow_any_more_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = parse_url("postgresql+asyncpg://fleet@/fleet")
    program = tmp_path / "bin/pg_dump"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\nfor each; do case $each in\n"
        '--file=*) echo some > "${each#--file=}"\n;; esac; done\n'
        "exec sleep 1000\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with pytest.raises(Unfit, match="after 5 bytes nothing came for 1 s"):
        postgres.dump(url, tmp_path / "dump", compressed=True, silent_s=1.0)


def test_a_program_that_does_not_answer_is_given_up() -> None:
    with pytest.raises(Unfit, match="sleep did not end within 0 s"):
        postgres.output(["sleep", "1000"], limit_s=0.0)


def test_a_password_is_told_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("PG")]:
        monkeypatch.delenv(name)
    url = parse_url("postgresql+asyncpg://fleet:se%40cret@db.example:5433/fleet?ssl=require")
    told = postgres.environment_of(url)
    assert {name: told[name] for name in told if name.startswith("PG")} == {
        "PGCONNECT_TIMEOUT": "10",
        "PGHOST": "db.example",
        "PGPORT": "5433",
        "PGUSER": "fleet",
        "PGPASSWORD": "se@cret",
        "PGDATABASE": "fleet",
        "PGSSLMODE": "require",
    }
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "3")
    assert postgres.environment_of(url)["PGCONNECT_TIMEOUT"] == "3"
