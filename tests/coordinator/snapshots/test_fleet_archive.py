"""Snapshots that the sleds hold: the catalogue of a real coordinator, the bytes from any sled."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from agent.snapshots.course import End, Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.errors import Changed, Gone, Refused, Unreachable
from agent.snapshots.fleet import FleetArchive
from agent.snapshots.opening import open_archive
from agent.snapshots.patience import Patience
from agent.snapshots.publish import Publication, publish
from agent.snapshots.retention import keep_newest
from agent.snapshots.values import Checksum, Head, Metadata
from coordinator.assembly import Coordinator
from coordinator.database import generation, sleds
from coordinator.database.transaction import Transaction
from depot.artifact import ArtifactHash
from depot.streams.sources import Pace
from tests.coordinator.running import coordinating
from tests.coordinator.snapshots.depots import Depot, serving_ranges

CONTENT: Final = bytes(range(256)) * 36_000  # two parts


class Fleet:
    """A coordinator, three sleds' depots, and what somebody elsewhere does with both."""

    def __init__(self, running: Coordinator, depots: list[Depot], place: Path) -> None:
        self.running = running
        self.depots = depots
        self.target = place / "target"
        self.lines: list[str] = []
        self.archive = open_archive(f"fleet+{running.server.url}")
        self._place = place

    async def published(self, content: bytes, *, compressed: bool = False) -> Head:
        """Publish from a file; every sled has it then."""
        file = self._place / "file"

        def work() -> Head:
            file.write_bytes(content)
            publication = Publication(path=file, name="state", compressed=compressed)
            return publish(self.archive, publication, line=lambda _: None, progress=lambda _: None)

        head = await asyncio.to_thread(work)
        staged = await self.running.staging.locate(ArtifactHash.parse(head.version.tag))
        stored = await asyncio.to_thread(staged.path.read_bytes)
        for depot in self.depots:
            depot.held[head.version.tag] = stored
        return head

    async def downloaded(self) -> End:
        telling = Telling(
            line=self.lines.append,
            warning=lambda _: None,
            failure=lambda *_: None,
            progress=lambda _: None,
        )
        patience = Patience(attempts=3, first_s=0.01)
        this = Download(self.archive, "state", self.target, telling, patience=patience)
        return await asyncio.to_thread(this.run)

    async def content(self) -> bytes:
        return await asyncio.to_thread(self.target.read_bytes)

    async def read(self, head: Head, start: int = 0) -> bytes:
        return await asyncio.to_thread(
            lambda: b"".join(self.archive.read(head.version, start, head.stored_bytes))
        )


@pytest.fixture
def depots() -> Iterator[list[Depot]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving_ranges()) for _ in range(3)]


@pytest.fixture
async def fleet(tmp_path: Path, depots: list[Depot]) -> AsyncIterator[Fleet]:
    async def add(tx: Transaction) -> None:
        for number, depot in enumerate(depots):
            await sleds.upsert(tx, f"s{number}", f"http://127.0.0.1:{number + 1}", depot.url)

    async with coordinating(tmp_path) as running:
        await running.database.run(add)
        yield Fleet(running, depots, tmp_path)


async def test_s2_a_sled_that_drips_holds_nobody(fleet: Fleet, depots: list[Depot]) -> None:
    await fleet.published(CONTENT)
    pace = Pace(idle_timeout_s=60, min_bytes_per_s=2_000, window_s=0.5)
    fleet.archive = FleetArchive(fleet.running.server.url, pace=pace)
    for depot in depots[:2]:
        depot.drips = True
    assert (await fleet.downloaded()).result is Result.DOWNLOADED
    assert await fleet.content() == CONTENT


@pytest.mark.parametrize("compressed", [False, True])
async def test_f3_what_is_published_is_wanted_and_comes_from_the_sleds(
    fleet: Fleet, compressed: bool
) -> None:
    before = await fleet.running.database.run(generation.read)
    head = await fleet.published(CONTENT, compressed=compressed)
    assert await fleet.running.database.run(generation.read) == before + 1
    assert (head.stored_bytes < len(CONTENT)) == compressed

    assert (await fleet.downloaded()).result is Result.DOWNLOADED
    assert await fleet.content() == CONTENT
    assert f"Remote version: {head.version}" in fleet.lines
    assert (await fleet.downloaded()).result is Result.THERE_ALREADY


async def test_it_is_exactly_that_version_though_a_newer_one_is_published_meanwhile(
    fleet: Fleet,
) -> None:
    older = await fleet.published(b"older")
    newer = await fleet.published(b"newer")
    assert await fleet.read(older) == b"older"
    assert (await asyncio.to_thread(fleet.archive.head, "state")).version == newer.version
    left = await asyncio.to_thread(keep_newest, fleet.archive, "state", 1)
    assert left == [older.version]
    listed = await asyncio.to_thread(fleet.archive.versions, "state")
    assert [each.version for each in listed] == [newer.version]
    for depot in fleet.depots:
        del depot.held[older.version.tag]
    with pytest.raises(Gone):
        await fleet.read(older)


async def test_a_sled_that_is_away_or_has_it_not_or_breaks_off_is_passed_over(
    fleet: Fleet,
) -> None:
    head = await fleet.published(CONTENT)
    del fleet.depots[0].held[head.version.tag]
    fleet.depots[1].cut_after = 1000
    assert (await fleet.downloaded()).result is Result.DOWNLOADED
    assert await fleet.content() == CONTENT
    assert fleet.depots[2].asked


async def test_b2_a_sled_that_lies_spoils_one_attempt_and_another_one_is_asked(
    fleet: Fleet,
) -> None:
    await fleet.published(CONTENT)
    liars: list[Depot] = []

    def lie(depot: Depot, body: bytes) -> bytes:
        if not liars:
            liars.append(depot)  # whichever was asked first
        return b"X" + body[1:] if depot in liars else body

    for depot in fleet.depots:
        depot.body = partial(lie, depot)
    assert (await fleet.downloaded()).result is Result.DOWNLOADED
    assert await fleet.content() == CONTENT
    assert any(line.startswith("Not intact: ") for line in fleet.lines)


async def test_b2_where_all_of_them_lie_nothing_is_left_under_the_targets_name(
    fleet: Fleet,
) -> None:
    await fleet.published(CONTENT)
    for depot in fleet.depots:
        depot.body = lambda body: body[:-1] + b"X"
    assert (await fleet.downloaded()).result is Result.NOT_INTACT
    assert not await asyncio.to_thread(fleet.target.exists)


async def test_a_snapshot_that_no_sled_has_yet_is_waited_for_and_then_given_up(
    fleet: Fleet,
) -> None:
    head = await fleet.published(CONTENT)
    for depot in fleet.depots:
        del depot.held[head.version.tag]
    end = await fleet.downloaded()
    assert end.result is Result.UNREACHABLE
    assert "no sled gives" in str(end.why)


async def test_a_file_that_changes_while_it_is_sent_is_no_version(fleet: Fleet) -> None:
    checksum = Checksum(hashlib.sha256(b"as it was").digest())

    def work() -> None:
        def blocks() -> Iterator[bytes]:
            yield b"as it"
            raise Changed("it changed")

        said = Metadata(checksum=checksum, size_bytes=9, version="v1")
        fleet.archive.put("state", blocks(), said)

    with pytest.raises(Changed):
        await asyncio.to_thread(work)
    assert await asyncio.to_thread(fleet.archive.versions, "state") == []
    with pytest.raises(Gone):
        await asyncio.to_thread(fleet.archive.head, "state")


async def test_what_the_coordinator_says_no_to_is_not_tried_again(fleet: Fleet) -> None:
    head = await fleet.published(b"one")
    with pytest.raises(Refused, match="is the newest"):
        await asyncio.to_thread(fleet.archive.delete, head.version)
    fleet.running.desk.quiescing = "about to stop"
    with pytest.raises(Unreachable, match="about to stop"):
        await fleet.published(b"two")


async def test_a_coordinator_that_is_away_is_unreachable() -> None:
    archive = FleetArchive("http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        await asyncio.to_thread(archive.head, "state")
