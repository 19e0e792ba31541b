from __future__ import annotations

from coordinator.database import pins, releases, sleds, snapshot, staged, target
from coordinator.database.database import Database
from coordinator.database.transaction import Transaction
from coordinator.values import SledPolicy
from depot.artifact import ArtifactConfig
from tests.coordinator.database.making import add_sled, artifact, config_of, release, sha


async def test_an_empty_fleet_wants_nothing(database: Database) -> None:
    found = await database.run(snapshot.read)
    assert config_of(found, "s1") == ArtifactConfig.make(1, [])
    assert (found.sleds, found.releases, found.target) == ((), (), None)


async def test_a_snapshot_says_what_each_sled_is_to_hold(database: Database) -> None:
    first = release("1.0", artifact("a"), artifact("bb"))
    second = release("2.0", artifact("bb"), artifact("also-bb", "bb"), artifact("ccc"))

    async def fill(tx: Transaction) -> None:
        for sled_id in ("s2", "s1", "s3"):
            await add_sled(tx, sled_id)
        await releases.record(tx, first)
        await releases.record(tx, second)
        await pins.keep(tx, "s1", [sha("bb"), sha("x")])
        await staged.add(tx, "c1", [sha("a")])
        await target.choose(tx, "2.0", 1.0)
        await sleds.set_policy(tx, "s3", SledPolicy.EXPUNGED)

    await database.run(fill)
    found = await database.run(snapshot.read)
    assert found.wanted == {sha("a"): 1, sha("bb"): 2, sha("ccc"): 3}
    everywhere = {sha("a"), sha("bb"), sha("ccc")}
    assert config_of(found, "s2") == ArtifactConfig.make(2, everywhere)
    assert config_of(found, "s1") == ArtifactConfig.make(2, everywhere | {sha("x")})
    assert [sled.id for sled in found.sleds] == ["s1", "s2"]
    assert found.releases == (first, second)
    assert found.target == "2.0"
    assert found.staged == {"c1": {sha("a")}}
    assert found.kept == {"s1": {sha("x")}}


async def test_what_is_kept_for_a_sled_and_wanted_everywhere_is_named_once(
    database: Database,
) -> None:
    async def fill(tx: Transaction) -> None:
        await add_sled(tx, "s1")
        await pins.keep(tx, "s1", [sha("x")])
        await releases.record(tx, release("1.0", artifact("x")))

    await database.run(fill)
    found = await database.run(snapshot.read)
    assert found.kept == {}
    assert config_of(found, "s1").artifacts == {sha("x")}
