"""Sleds that say what happened there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from agent.wire.events import EventBody, EventsBody
from coordinator.database import sleds
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.values import Sled, SledPolicy
from tests.coordinator.database.making import add_sled, sha

AT: Final = datetime(2026, 11, 22, 6, 0, 0, tzinfo=UTC)


class Log:
    """A sled's log of events."""

    def __init__(self, epoch: str, numbers: Iterable[int] = ()) -> None:
        self.epoch = epoch
        self.fails: Exception | None = None
        self.bodies: list[EventBody] = []
        self.add(*numbers)

    def add(self, *numbers: int, kind: str = "put", time: datetime = AT, **fields: object) -> None:
        more = {"sha256": str(sha("a")), "size_bytes": 7, **fields}
        self.bodies += [
            EventBody.model_validate({"sequence": number, "time": time, "kind": kind, **more})
            for number in numbers
        ]

    async def events(
        self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
    ) -> EventsBody:
        if self.fails is not None:
            raise self.fails
        found = tuple(body for body in self.bodies if body.sequence > after)[:limit]
        kept = [body.sequence for body in self.bodies] or [0]
        return EventsBody(epoch=self.epoch, oldest=kept[0], latest=kept[-1], events=found)


class Fleet(dict[str, Log]):
    def __call__(self, sled: Sled) -> Log:
        return self[sled.id]


async def rename_sled(database: Database, fleet: Fleet) -> None:
    """Have sled s1 be expunged, and the same machine be added as another one, "renamed"."""

    async def rename(tx: Transaction) -> None:
        await sleds.set_policy(tx, "s1", SledPolicy.EXPUNGED)
        await add_sled(tx, "renamed")

    await database.run(rename)
    fleet["renamed"] = fleet["s1"]
