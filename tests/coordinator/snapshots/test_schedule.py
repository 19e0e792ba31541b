"""Snapshots every so often: by one coordinator at a time, and a failure is seen everywhere."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import select

from agent.snapshots.archive import Archive
from agent.snapshots.errors import Refused, Unreachable
from agent.snapshots.files import FileArchive
from agent.snapshots.values import Metadata, Version
from coordinator.database import snapshot_turns
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.database.journal_tables import journal_told
from coordinator.database.transaction import Transaction
from coordinator.errors import SnapshotFailed
from coordinator.snapshots.copying import Order
from coordinator.snapshots.schedule import STILL_S, Every, Schedule
from tests.coordinator.running import client_of, coordinating
from tests.store.arrivals import eventually

INTERVAL_S = 600.0
KEEP = 5


class Faulty(FileArchive):
    """An archive that is away when it is told to be, and that can make a publisher wait."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.away = False
        self.keeps_all = False
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        self.begun.set()
        assert self.may_go_on.wait(60)
        if self.away:
            raise Unreachable("the archive is away")
        return super().put(name, blocks, metadata)

    def delete(self, version: Version) -> None:
        if self.keeps_all:
            raise Refused("nothing leaves here")
        super().delete(version)


class Fleet:
    """Coordinators that share a database and an archive, and clocks."""

    def __init__(self, database: Database, url: str, place: Path) -> None:
        self.now_s = 1000.0
        self.running_s = 50.0
        self.archive = Faulty(place / "archive")
        self._database = database
        self._url = url
        self._place = place

    def coordinator(self, name: str) -> Schedule:
        every = Every(
            order=Order(parse_url(self._url), "fleet", compressed=True),
            archive="the one below",
            endpoint=None,
            directory=self._place / name,
            keep=KEEP,
            interval_s=INTERVAL_S,
        )
        return Schedule(
            self._database,
            name,
            every,
            clock=lambda: self.now_s,
            steady_clock=lambda: self.running_s,
            open_archive=self._open,
        )

    def _open(self, url: str, endpoint: str | None) -> Archive:
        return self.archive

    async def versions(self) -> int:
        return len(await asyncio.to_thread(self.archive.versions, "fleet"))

    async def told(self) -> list[str]:
        return await self._database.run(_told)


async def _told(tx: Transaction) -> list[str]:
    rows = await tx.rows(select(journal_told.c.kind).order_by(journal_told.c.id))
    return [row.kind for row in rows if row.kind.startswith("fleet.snapshot")]


@pytest.fixture
def fleet(database: Database, url: str, archive: FileArchive, tmp_path: Path) -> Fleet:
    return Fleet(database, url, tmp_path)


async def test_one_is_published_when_it_is_due_by_whoever_looks_first(fleet: Fleet) -> None:
    one, other = fleet.coordinator("c1"), fleet.coordinator("c2")
    await one.look()
    await one.look()
    await other.look()
    assert await fleet.versions() == 1
    assert other.published_at_s == 1000.0
    fleet.now_s += INTERVAL_S
    await other.look()
    await one.look()
    assert await fleet.versions() == 2
    assert await fleet.told() == ["fleet.snapshot_published"] * 2


async def test_one_coordinator_at_a_time_is_at_it(fleet: Fleet) -> None:
    one, other = fleet.coordinator("c1"), fleet.coordinator("c2")
    fleet.archive.may_go_on.clear()
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(one.look())
        await asyncio.to_thread(fleet.archive.begun.wait, 60)
        await other.look()
        assert not looking.done()
        fleet.archive.may_go_on.set()
    assert await fleet.versions() == 1


async def test_s5_one_that_comes_no_further_is_told_of_until_it_does(fleet: Fleet) -> None:
    one = fleet.coordinator("c1")
    fleet.archive.may_go_on.clear()
    async with asyncio.TaskGroup() as group:
        looking = group.create_task(one.look())
        await asyncio.to_thread(fleet.archive.begun.wait, 60)
        fleet.now_s += STILL_S  # somebody sets the clock
        await one.watch()
        fleet.running_s += STILL_S
        with pytest.raises(SnapshotFailed, match="no further for 60 min; the last step was: Local"):
            await one.watch()
        assert not looking.done()
        fleet.archive.may_go_on.set()
    await one.watch()
    assert await fleet.versions() == 1


async def test_a_failure_is_seen_by_all_until_one_succeeds_and_told_once(fleet: Fleet) -> None:
    one, other = fleet.coordinator("c1"), fleet.coordinator("c2")
    fleet.archive.away = True
    for _ in range(2):
        with pytest.raises(SnapshotFailed, match="the archive is away"):
            await one.look()
        fleet.now_s += 1
        with pytest.raises(SnapshotFailed, match="the archive is away"):
            await other.look()
        fleet.now_s += 120
    fleet.archive.away = False
    await other.look()
    await one.look()
    assert await fleet.versions() == 1
    assert await fleet.told() == ["fleet.snapshot_failed", "fleet.snapshot_published"]


async def test_a_retention_that_fails_shows_and_has_nothing_published_again(fleet: Fleet) -> None:
    one = fleet.coordinator("c1")
    fleet.archive.keeps_all = True
    for _ in range(KEEP):
        await one.look()
        fleet.now_s += INTERVAL_S
    for _ in range(3):
        with pytest.raises(SnapshotFailed, match="nothing leaves here"):
            await one.look()
        fleet.now_s += 60
    assert await fleet.versions() == KEEP + 1
    fleet.archive.keeps_all = False
    fleet.now_s += INTERVAL_S
    await one.look()
    assert await fleet.versions() == KEEP
    assert await fleet.told() == ["fleet.snapshot_published"] * (KEEP + 2)


async def test_after_each_failure_it_waits_for_longer_until_one_succeeds(
    fleet: Fleet, database: Database
) -> None:
    one = fleet.coordinator("c1")
    fleet.archive.away = True
    for pause_s in (60, 120, 240, 480):
        with pytest.raises(SnapshotFailed):
            await one.look()
        fleet.archive.begun.clear()
        fleet.now_s += pause_s - 1
        with pytest.raises(SnapshotFailed):
            await one.look()
        assert not fleet.archive.begun.is_set(), f"before {pause_s} s"
        fleet.now_s += 1


async def test_a_coordinator_that_stops_in_the_middle_gives_its_turn_back(fleet: Fleet) -> None:
    one, other = fleet.coordinator("c1"), fleet.coordinator("c2")
    fleet.archive.may_go_on.clear()
    looking = asyncio.create_task(one.look())
    await asyncio.to_thread(fleet.archive.begun.wait, 60)
    looking.cancel()
    # The thread sees that it is to stop with the next block.
    fleet.archive.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await looking
    await other.look()
    assert await fleet.told() == ["fleet.snapshot_published"]


async def test_the_turn_of_one_that_died_ends_by_itself(fleet: Fleet, database: Database) -> None:
    name, held_s = "fleet", snapshot_turns.HELD_S
    turn = await database.run(snapshot_turns.take, name, "dead", fleet.now_s, interval_s=INTERVAL_S)
    assert turn.taken
    one = fleet.coordinator("c1")
    await one.look()
    assert await fleet.versions() == 0
    assert await database.run(snapshot_turns.prolong, name, "dead", fleet.now_s + 10)
    fleet.now_s += held_s + 5
    await one.look()
    assert await fleet.versions() == 0
    fleet.now_s += 6
    await one.look()
    assert await fleet.versions() == 1
    assert not await database.run(snapshot_turns.prolong, name, "dead", fleet.now_s)


async def test_a_failure_of_one_that_lost_its_turn_meanwhile_counts_for_nothing(
    fleet: Fleet, database: Database
) -> None:
    name = "fleet"
    await database.run(snapshot_turns.take, name, "slow", fleet.now_s, interval_s=INTERVAL_S)
    fleet.now_s += snapshot_turns.HELD_S + 1
    one = fleet.coordinator("c1")
    await one.look()
    failed = snapshot_turns.failed
    await database.run(failed, name, "slow", "much too late", fleet.now_s, not_before_s=60.0)
    await one.look()
    assert await fleet.told() == ["fleet.snapshot_published"]


async def test_a_clock_that_was_far_ahead_holds_up_nothing(fleet: Fleet) -> None:
    one = fleet.coordinator("c1")
    fleet.now_s = 1e12
    await one.look()
    fleet.now_s = 1000.0
    await one.look()
    assert await fleet.versions() == 2


async def test_what_fails_shows_in_the_status_and_the_metrics(
    sqlite_template: bytes, tmp_path: Path
) -> None:
    gone = tmp_path / "file"
    await asyncio.to_thread(gone.write_text, "no directory")
    table = {"archive": f"file://{gone}/archive", "interval_s": 3600}
    async with coordinating(tmp_path, snapshot=table) as running, client_of(running) as client:
        await eventually(lambda: any(duty.failing for duty in running.duties.snapshot()))
        warnings = (await client.replication()).warnings
        assert warnings[0].startswith("snapshot fails: SnapshotFailed: ")
        assert "snapshot fails" in running.status_line()
        states = {duty.name: duty.failures for duty in running.duties.snapshot()}
        assert states["snapshot"] == 1


async def test_a_coordinator_publishes_by_itself(tmp_path: Path) -> None:
    table = {"archive": f"file://{tmp_path}/archive", "interval_s": 3600, "name": "ours"}
    async with coordinating(tmp_path, snapshot=table) as running:
        snapshots = running.snapshots
        assert snapshots is not None
        await eventually(lambda: snapshots.published_at_s is not None)
    meta = await asyncio.to_thread((tmp_path / "archive/ours.meta.json").read_text)
    assert json.loads(meta)["compression"] == "zstd"
