from __future__ import annotations

import asyncio

import pytest

from coordinator.database import generation, pins, sleds
from coordinator.database.database import Database
from coordinator.errors import (
    SledAddressTaken,
    SledExpunged,
    SledInService,
    SledNotFound,
    TooMany,
)
from coordinator.values import Sled, SledPolicy, SledSighting, SledState
from depot.artifact import Generation
from tests.coordinator.database.making import opened, sha


async def add(database: Database, sled_id: str, host: str = "") -> Sled:
    host = host or sled_id
    return await database.run(sleds.upsert, sled_id, f"http://{host}:12345", f"http://{host}:12348")


async def test_a_sled_is_added_in_service_and_found_by_its_id(database: Database) -> None:
    added = await add(database, "s1")
    assert added == Sled("s1", "http://s1:12345", "http://s1:12348")
    assert await database.run(sleds.get, "s1") == added


async def test_a_sled_that_moved_keeps_what_is_known_of_it(database: Database) -> None:
    await add(database, "s1")
    seen = SledSighting("s1", SledState.OK, seen_at_s=5.5, generation=Generation(7))
    await database.run(sleds.note, [seen])
    moved = await add(database, "s1", host="elsewhere")
    assert moved.agent_url == "http://elsewhere:12345"
    assert (moved.state, moved.last_seen_at, moved.generation) == (SledState.OK, 5.5, 7)


async def test_an_expunged_sled_does_not_come_back_by_registering_itself(
    database: Database,
) -> None:
    await add(database, "s1")
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    with pytest.raises(SledExpunged, match="s1"):
        await add(database, "s1", host="elsewhere")
    assert await database.run(sleds.in_service) == ()
    back = await database.run(sleds.set_policy, "s1", SledPolicy.IN_SERVICE)
    assert await database.run(sleds.in_service) == (back,)


async def test_f2_one_agent_is_not_two_sleds(database: Database) -> None:
    await add(database, "old")
    with pytest.raises(SledAddressTaken, match="'old'") as refused:
        await add(database, "new", host="old")
    assert refused.value.details() == {"sled": "old"}
    await add(database, "new")
    with pytest.raises(SledAddressTaken, match="'old'"):
        await add(database, "new", host="old")
    assert (await database.run(sleds.get, "new")).agent_url == "http://new:12345"


async def test_the_agent_of_an_expunged_sled_can_be_another_one_and_then_not_come_back(
    database: Database,
) -> None:
    """A node that was set up anew under another id; and the old one is not wanted any more."""
    await add(database, "old")
    await database.run(sleds.set_policy, "old", SledPolicy.EXPUNGED)
    await add(database, "new", host="old")
    with pytest.raises(SledAddressTaken, match="'new'"):
        await database.run(sleds.set_policy, "old", SledPolicy.IN_SERVICE)
    await database.run(sleds.remove, "old")
    assert [sled.id for sled in await database.run(sleds.every)] == ["new"]


async def test_two_that_claim_one_agent_at_once_are_one_sled(
    database: Database, database_url: str
) -> None:
    async with await opened(database_url) as other:
        claims = [add(one, name, host="node") for one, name in ((database, "a"), (other, "b"))]
        results = await asyncio.gather(*claims, return_exceptions=True)
    assert [type(each) for each in results].count(SledAddressTaken) == 1
    assert len(await database.run(sleds.every)) == 1


async def test_only_an_expunged_sled_is_removed_and_its_pins_with_it(database: Database) -> None:
    await add(database, "s1")
    await database.run(pins.keep, "s1", {sha("pinned")})
    with pytest.raises(SledInService, match="'s1'"):
        await database.run(sleds.remove, "s1")
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    assert (await database.run(sleds.remove, "s1")).id == "s1"
    assert await database.run(pins.every) == {}
    with pytest.raises(SledNotFound):
        await database.run(sleds.remove, "s1")
    assert (await add(database, "s1")).policy is SledPolicy.IN_SERVICE


async def test_there_are_so_many_sleds_and_no_more(database: Database) -> None:
    async def upsert(sled_id: str) -> None:
        url = f"http://{sled_id}:1"
        await database.run(sleds.upsert, sled_id, url, url, limit=2)

    for sled_id in ("s1", "s2"):
        await upsert(sled_id)
    with pytest.raises(TooMany, match="has 2 sleds"):
        await upsert("s3")
    await upsert("s2")


async def test_all_sleds_are_listed_by_id_and_those_in_service_apart(database: Database) -> None:
    for sled_id in ("s3", "s1", "s2"):
        await add(database, sled_id)
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    assert [sled.id for sled in await database.run(sleds.every)] == ["s1", "s2", "s3"]
    assert [sled.id for sled in await database.run(sleds.in_service)] == ["s2", "s3"]


async def test_what_a_sighting_does_not_know_stays_as_it_was(database: Database) -> None:
    await add(database, "s1")
    well = SledSighting("s1", SledState.OK, seen_at_s=5.0, generation=Generation(2))
    await database.run(sleds.note, [well])
    down = SledSighting("s1", SledState.UNREACHABLE, error="no answer")
    await database.run(sleds.note, [down])
    sled = await database.run(sleds.get, "s1")
    assert (sled.state, sled.last_error) == (SledState.UNREACHABLE, "no answer")
    assert (sled.last_seen_at, sled.generation) == (5.0, 2)
    await database.run(sleds.note, [well])
    assert (await database.run(sleds.get, "s1")).last_error is None


async def test_a_coordinator_that_stood_still_takes_back_nothing_that_a_sled_has_confirmed_since(
    database: Database,
) -> None:
    """Pruning goes by it: what a silent sled may have pinned stays."""
    await add(database, "s1")
    before = SledSighting("s1", SledState.OK, seen_at_s=5.0, generation=Generation(2))
    since = SledSighting("s1", SledState.OK, seen_at_s=9.0, generation=Generation(3))
    await database.run(sleds.note, [since])
    await database.run(sleds.note, [before])
    sled = await database.run(sleds.get, "s1")
    assert (sled.last_seen_at, sled.generation) == (9.0, 3)
    reset = SledSighting("s1", SledState.OK, seen_at_s=10.0, generation=Generation(1))
    await database.run(sleds.note, [reset])
    sled = await database.run(sleds.get, "s1")
    assert (sled.last_seen_at, sled.generation) == (10.0, 1)


async def test_sightings_of_sleds_that_are_gone_are_left_out(database: Database) -> None:
    await add(database, "s1")
    await add(database, "s2")
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    sightings = [SledSighting(name, SledState.OK, seen_at_s=1.0) for name in ("s1", "s2", "s9")]
    await database.run(sleds.note, sightings)
    states = {sled.id: sled.state for sled in await database.run(sleds.every)}
    assert states == {"s1": None, "s2": SledState.OK}


async def test_an_unknown_sled_is_named(database: Database) -> None:
    with pytest.raises(SledNotFound, match="s9"):
        await database.run(sleds.get, "s9")
    with pytest.raises(SledNotFound, match="s9"):
        await database.run(sleds.set_policy, "s9", SledPolicy.EXPUNGED)


async def test_sleds_come_and_go_without_a_new_generation(database: Database) -> None:
    await add(database, "s1")
    await database.run(sleds.set_policy, "s1", SledPolicy.EXPUNGED)
    assert await database.run(generation.read) == 1


async def test_a_sled_that_is_removed_while_its_pins_are_written_leaves_none(
    database: Database, database_url: str
) -> None:
    """Whichever comes first, nobody fails for it but with what is so."""
    async with await opened(database_url) as other:
        for round_ in range(3):
            sled_id = f"s{round_}"
            await add(database, sled_id)
            await database.run(sleds.set_policy, sled_id, SledPolicy.EXPUNGED)
            results = await asyncio.gather(
                other.run(pins.keep, sled_id, {sha("x"), sha("y")}),
                database.run(sleds.remove, sled_id),
                return_exceptions=True,
            )
            assert isinstance(results[0], frozenset | SledNotFound)
            assert isinstance(results[1], Sled)
    assert await database.run(pins.every) == {}
