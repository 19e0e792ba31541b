"""What sleds say that happened is told once each, and what is missing is told as missing."""

from __future__ import annotations

import asyncio
import json
import secrets
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from agent.wire.events import EventsBody
from coordinator.database.database import Database
from coordinator.database.journal_tables import journal_cursors
from coordinator.errors import DatabaseUnavailable
from coordinator.journal import gathering
from coordinator.journal.checking import Checker
from coordinator.journal.gathering import Gatherer
from coordinator.journal.journal import Journal
from coordinator.journal.values import Wanted
from depot.errors import Io
from tests.coordinator.database.making import add_sled, sha
from tests.coordinator.journal.event_logs import AT, Fleet, Log, rename_sled


@pytest.fixture
async def fleet(database: Database) -> Fleet:
    await database.run(add_sled, "s1")
    return Fleet(s1=Log("e1", [1, 2, 3]))


@pytest.fixture
def gatherer(database: Database, fleet: Fleet) -> Gatherer:
    return Gatherer(database, fleet)


async def said(journal: Journal, sled_id: str = "s1") -> list[str]:
    """What the journal has of a sled: the numbers of events, and what it says itself."""
    found = []
    for entry in await journal.entries(0, 10_000, Wanted(sled_id=sled_id)):
        content: dict[str, Any] = json.loads(entry.content)
        match entry.kind:
            case "journal.gap":
                found.append(f"gap {content['data']['first']}-{content['data']['last']}")
            case kind if kind.startswith("sled."):
                found.append(f"{content['source']['epoch']} {content['source']['sequence']}")
            case "fleet.sled_added":
                continue
            case kind:
                found.append(kind)
    return found


async def remarks(journal: Journal) -> list[str]:
    """What a check of the journal says beside that all of it verifies."""
    checker = Checker()
    async for record in journal.export():
        checker.feed(json.loads(json.dumps(record)))
    checked = checker.end()
    assert checked.findings == []
    return [remark.what for remark in checked.remarks]


async def test_each_event_is_told_once_however_often_it_is_asked_for(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await gatherer.round()
    fleet["s1"].add(4)
    await gatherer.round()
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", "e1 4"]


async def test_an_entry_says_what_the_sled_said_and_is_found_by_its_artifact(
    journal: Journal, gatherer: Gatherer
) -> None:
    await gatherer.round()
    (first, *_) = await journal.entries(0, 10, Wanted(artifact=str(sha("a"))[:8]))
    content = json.loads(first.content)
    assert (first.kind, first.time_s) == ("sled.put", AT.timestamp())
    assert content["data"] == {"sha256": str(sha("a")), "size_bytes": 7}
    assert (content["sled"], content["artifacts"]) == ("s1", [str(sha("a"))])


async def test_two_coordinators_that_ask_at_once_tell_each_event_once(
    journal: Journal, database: Database, fleet: Fleet
) -> None:
    fleet["s1"].add(*range(4, 60))
    both = [Gatherer(database, fleet) for _ in range(2)]
    await asyncio.gather(*(each.round() for each in both))
    assert await said(journal) == [f"e1 {number}" for number in range(1, 60)]


async def test_what_a_log_does_not_have_any_more_is_told_as_missing_once(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    fleet["s1"] = Log("e1", [8, 9])
    await gatherer.round()
    await gatherer.round()
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", "gap 4-7", "e1 8", "e1 9"]


async def test_a_log_that_begins_anew_is_told_from_its_beginning(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    old, fleet["s1"] = fleet["s1"], Log("e2", [1])
    await gatherer.round()
    old.add(4)
    fleet["s1"] = old
    await gatherer.round()
    again = "journal.new_event_log"
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", again, "e2 1", "e1 4"]


async def test_more_than_fits_a_page_is_told_page_by_page(
    journal: Journal, fleet: Fleet, gatherer: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PAGE", 2)
    fleet["s1"].add(4, 5)
    await gatherer.round()
    assert await said(journal) == [f"e1 {number}" for number in range(1, 6)]


async def test_a_sled_that_does_not_answer_keeps_no_other_one_waiting(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await database.run(add_sled, "s2")
    fleet["s2"] = Log("e2", [1])
    fleet["s1"].fails = Io("it is away")
    await gatherer.round()
    assert (await said(journal), await said(journal, "s2")) == ([], ["e2 1"])


async def test_a_round_that_the_database_ends_leaves_nobody_behind_who_still_asks(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    failed, let_go = asyncio.Event(), asyncio.Event()

    class Slow(Log):
        async def events(
            self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
        ) -> EventsBody:
            await let_go.wait()
            return await super().events(after, limit=limit)

    class Failing(Log):
        async def events(
            self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
        ) -> EventsBody:
            failed.set()
            raise DatabaseUnavailable("it is away")

    await database.run(add_sled, "s2")
    fleet["s1"], fleet["s2"] = Slow("e1", [1]), Failing("e2")
    running = asyncio.create_task(gatherer.round())
    await failed.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not running.done()
    let_go.set()
    with pytest.raises(DatabaseUnavailable):
        await running
    assert await said(journal) == ["e1 1"]


@pytest.mark.parametrize(
    "log",
    [Log("e\0", [1]), Log(secrets.token_hex(8192), [1]), Log("e1", [1 << 63])],
    ids=["epoch-nul", "epoch-long", "number"],
)
async def test_a_sled_that_says_what_no_database_can_hold_keeps_no_other_one_waiting(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer, log: Log
) -> None:
    await database.run(add_sled, "s2")
    fleet["s1"], fleet["s2"] = log, Log("e2", [1])
    await gatherer.round()
    assert await said(journal, "s2") == ["e2 1"]


async def test_a_log_that_has_the_name_of_anothers_return_keeps_no_sled_from_being_told_of(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    fleet["s1"] = Log(f"e1+{'9' * 5000}", [1])
    await gatherer.round()
    fleet["s1"] = Log("e1", [1, 2, 3, 4])
    await gatherer.round()
    assert (await said(journal))[-1] == "e1 4"


async def test_what_another_sled_of_the_fleet_says_is_not_told_of_this_one(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await database.run(add_sled, "s2")
    fleet["s2"] = fleet["s1"]
    fleet["s1"].add(4)
    await gatherer.round()
    await gatherer.round()
    assert (await said(journal))[-1] == "e1 4"
    assert await said(journal, "s2") == []


async def test_a_sled_that_has_another_id_now_goes_on_where_it_was(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    await rename_sled(database, fleet)
    fleet["s1"].add(4)
    await gatherer.round()
    assert await said(journal, "renamed") == ["e1 4"]


async def test_what_a_sled_says_is_bounded_and_any_text(
    journal: Journal, fleet: Fleet, gatherer: Gatherer
) -> None:
    fleet["s1"].add(4, kind="k\0" + "x" * 1000, text="a\0b", sha256="none")
    fleet["s1"].add(5, much="x" * 100_000)
    await gatherer.round()
    odd, much = (await journal.entries(0, 100, Wanted(sled_id="s1")))[-2:]
    assert len(odd.kind) < 100
    assert json.loads(odd.content)["data"]["text"] == "a\0b"
    assert set(json.loads(much.content)["data"]) == {"omitted_characters"}
    checker = Checker()
    async for record in journal.export():
        checker.feed(record)
    assert checker.end().findings == []


async def move_cursor(database: Database, sled_id: str, to: int) -> None:
    """What somebody does who can write to the database."""
    its = update(journal_cursors).where(journal_cursors.c.sled_id == sled_id)
    await database.run(lambda tx: tx.write(its.values(sequence=to)))


@pytest.mark.parametrize("numbered", [False, True])
async def test_a_cursor_that_was_moved_back_has_nothing_told_twice_and_stops_nobody(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer, numbered: bool
) -> None:
    await database.run(add_sled, "s2")
    fleet["s2"] = Log("e2", [1])
    await gatherer.round()
    if numbered:
        await journal.number()
    await move_cursor(database, "s1", 1)
    for log in fleet.values():
        log.add(log.bodies[-1].sequence + 1)
    await gatherer.round()
    await gatherer.round()
    moved = "journal.cursor_moved_back"
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", moved, "e1 4"]
    assert await said(journal, "s2") == ["e2 1", "e2 2"]
    assert await remarks(journal) == [
        "says that events of sled s1 counted as untold that were told: somebody has changed the "
        "database"
    ]


async def test_a_log_that_went_back_is_told_of_once_and_gone_on_with(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    fleet["s1"].add(4, 5)
    await gatherer.round()
    fleet["s1"] = Log("e1", [1, 2])
    both = [gatherer, Gatherer(database, fleet)]
    for each in both:
        await each.round()
    fleet["s1"].add(3, 4, 5, 6)
    for each in both:
        await each.round()
    told = ["journal.event_log_went_back", "gap 1-2", *(f"e1+1 {n}" for n in (3, 4, 5, 6))]
    assert await said(journal) == [*(f"e1 {n}" for n in (1, 2, 3, 4, 5)), *told]
    assert await remarks(journal) == [
        "says that sled s1 has lost events that it had told, as a backup does that is put back"
    ]


@pytest.mark.parametrize(("page", "gap"), [(500, "gap 1-2"), (1, "gap 1-3")])
async def test_what_happened_on_a_sled_before_it_is_known_that_its_log_went_back_is_told(
    journal: Journal,
    fleet: Fleet,
    gatherer: Gatherer,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
    gap: str,
) -> None:
    fleet["s1"].add(4, 5)
    await gatherer.round()
    fleet["s1"] = Log("e1", [1, 2])
    fleet["s1"].add(3, 4, time=AT + timedelta(seconds=1))
    monkeypatch.setattr(gathering, "PAGE", page)
    await gatherer.round()
    told = ["journal.event_log_went_back", gap, *(f"e1+1 {n}" for n in range(int(gap[-1]) + 1, 5))]
    assert (await said(journal))[5:] == told
    await remarks(journal)


async def test_a_log_that_goes_back_again_and_is_another_sleds_then_goes_on(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    await gatherer.round()
    for _ in range(2):
        fleet["s1"] = Log("e1")
        await gatherer.round()
        fleet["s1"].add(1, 2)
        await gatherer.round()
    await rename_sled(database, fleet)
    fleet["s1"].add(3)
    await gatherer.round()
    back = "journal.event_log_went_back"
    again = [back, "e1+1 1", "e1+1 2", back, "e1+2 1", "e1+2 2"]
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", *again, "fleet.sled_expunged"]
    assert await said(journal, "renamed") == ["e1+2 3"]
    assert len(await remarks(journal)) == 2


async def test_an_answer_that_others_were_faster_than_is_none_of_a_log_that_went_back(
    journal: Journal, database: Database, fleet: Fleet, gatherer: Gatherer
) -> None:
    class Slow(Log):
        async def events(
            self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
        ) -> EventsBody:
            page = await super().events(after, limit=limit)
            if self.bodies[-1].sequence == 3:
                self.add(4)
                await Gatherer(database, fleet).round()
            return page

    fleet["s1"] = Slow("e1", [1, 2, 3])
    await gatherer.round()
    assert await said(journal) == ["e1 1", "e1 2", "e1 3", "e1 4"]
