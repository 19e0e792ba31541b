"""What was noted about requests gets into the ring, also at the end of the process."""

from __future__ import annotations

import asyncio

from coordinator.replication.reporting import FLUSH_S, Reporting
from coordinator.replication.request_log import LIST, Request, RequestLog
from coordinator.values import Sled
from depot.artifact import Generation
from tests.coordinator.replication.sim_database import QUERY_S, SimDatabase, SimRecords
from tests.coordinator.replication.sim_sleds import Network
from tests.coordinator.replication.virtual import run

SLED = Sled("sled-a", "http://a", "http://b")


class Scene:
    def __init__(self) -> None:
        self.database = SimDatabase(Network(sizes={}))
        self.log = RequestLog()
        self.reporting = Reporting(self.log, SimRecords(self.database, "c1"))

    def note(self, operation: str) -> None:
        self.log.ended(Request(SLED, operation, Generation(1)))

    def written(self) -> list[str]:
        return [record.operation for record in self.database.requests]


def test_what_was_noted_a_moment_before_the_end_is_written_down() -> None:
    async def scenario() -> None:
        scene = Scene()
        flushing = asyncio.ensure_future(scene.reporting.keep_flushing())
        await asyncio.sleep(FLUSH_S / 2)
        scene.note(LIST)
        flushing.cancel()
        await asyncio.wait([flushing])
        assert flushing.cancelled()
        assert scene.written() == [LIST]

    run(scenario())


def test_what_was_being_written_down_at_the_end_is_not_forgotten() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.note(LIST)
        flushing = asyncio.ensure_future(scene.reporting.keep_flushing())
        await asyncio.sleep(FLUSH_S + QUERY_S / 2)
        assert scene.written() == []
        flushing.cancel()
        await asyncio.wait([flushing])
        assert scene.written() == [LIST]

    run(scenario())


def test_a_database_that_is_away_keeps_no_process_from_its_end() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.database.down = True
        scene.note(LIST)
        flushing = asyncio.ensure_future(scene.reporting.keep_flushing())
        await asyncio.sleep(FLUSH_S / 2)
        flushing.cancel()
        await asyncio.wait([flushing])
        assert flushing.cancelled()

    run(scenario())
