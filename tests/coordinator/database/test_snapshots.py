"""The catalogue of snapshots that sleds hold, and what it makes of the wanted set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.database import generation, pins, releases, snapshot, snapshots
from coordinator.database.database import Database
from coordinator.errors import SnapshotConflict, SnapshotNotFound
from coordinator.values import FleetSnapshot
from tests.coordinator.database.making import add_sled, artifact, release, sha


def version(text: str, content: str | None = None, name: str = "state") -> FleetSnapshot:
    content = text if content is None else content
    return FleetSnapshot(name, text, sha(content), len(content), 1000.0, {"checksum": content})


async def test_the_newest_is_the_one_that_was_recorded_last(database: Database) -> None:
    for each in ("v2", "v1"):
        await database.run(snapshots.record, version(each))
    await database.run(snapshots.record, version("v9", name="another"))
    found = await database.run(snapshots.versions, "state")
    assert found == [version("v1"), version("v2")]
    assert await database.run(snapshots.existing, "state") == found
    assert await database.run(snapshots.every) == [version("v9", name="another"), *found]
    with pytest.raises(SnapshotNotFound):
        await database.run(snapshots.existing, "none")


async def test_f3_recording_and_leaving_raise_the_generation_and_change_what_is_wanted(
    database: Database,
) -> None:
    await database.run(releases.record, release("1.0", artifact("a")))
    before = await database.run(generation.read)
    assert await database.run(snapshots.record, version("v1")) == version("v1")
    assert await database.run(generation.read) == before + 1
    assert (await database.run(snapshot.read)).wanted == {sha("a"): 1, sha("v1"): 2}

    await database.run(snapshots.record, version("v2"))
    await database.run(snapshots.record, replace(version("v2"), time_created_s=2000.0))
    assert await database.run(generation.read) == before + 2
    assert (await database.run(snapshot.read)).wanted == {sha("a"): 1, sha("v1"): 2, sha("v2"): 2}

    assert await database.run(snapshots.remove, "state", "v1")
    assert not await database.run(snapshots.remove, "state", "v1")
    assert await database.run(generation.read) == before + 3
    assert (await database.run(snapshot.read)).wanted == {sha("a"): 1, sha("v2"): 2}

    assert await database.run(snapshots.remove_every, "state") == [version("v2")]
    assert await database.run(generation.read) == before + 4
    assert (await database.run(snapshot.read)).wanted == {sha("a"): 1}
    with pytest.raises(SnapshotNotFound):
        await database.run(snapshots.remove_every, "state")


async def test_two_versions_may_have_the_same_content(database: Database) -> None:
    await database.run(snapshots.record, version("v1", "same"))
    await database.run(snapshots.record, version("v2", "same"))
    await database.run(snapshots.remove, "state", "v1")
    assert (await database.run(snapshot.read)).wanted == {sha("same"): 4}
    assert await database.run(snapshots.versions, "state") == [version("v2", "same")]


async def test_a_version_is_never_of_other_content_and_the_newest_is_not_removed(
    database: Database,
) -> None:
    await database.run(snapshots.record, version("v1"))
    with pytest.raises(SnapshotConflict):
        await database.run(snapshots.record, version("v1", "other"))
    with pytest.raises(SnapshotConflict):
        await database.run(snapshots.remove, "state", "v1")
    await database.run(snapshots.remove, "state", "v0")


async def test_what_a_sled_has_pinned_of_a_snapshot_is_not_kept_for_it_alone(
    database: Database,
) -> None:
    await database.run(add_sled, "s1")
    await database.run(snapshots.record, version("v1"))
    assert await database.run(pins.keep, "s1", [sha("v1"), sha("x")]) == {sha("x")}
