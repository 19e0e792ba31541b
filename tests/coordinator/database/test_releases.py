from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import pytest

from coordinator.database import generation, releases, snapshot, target
from coordinator.database.database import Database
from coordinator.errors import ReleaseConflict, ReleaseNotFound, TargetRelease
from coordinator.values import Release, ReleaseArtifact, ReleaseState
from tests.coordinator.database.making import artifact, release, sha


async def record(database: Database, one: Release) -> releases.Recorded:
    return await database.run(releases.record, one)


async def test_a_release_is_recorded_as_it_was_sent_in_its_order(database: Database) -> None:
    sent = replace(
        release(
            "1.0",
            artifact("zone"),
            artifact("boot"),
            ReleaseArtifact("cert", "2", sha("cert"), 4, tags=(("board", "g"), ("slot", "a"))),
            ReleaseArtifact("plain", "1.0", sha("boot"), 4),
        ),
        allowed_expired=True,
    )
    assert await record(database, sent) == releases.Recorded(sent, inserted=True)
    assert await database.run(releases.get, "1.0") == sent


async def test_the_same_release_again_is_known_and_changes_nothing(database: Database) -> None:
    sent = release("1.0", artifact("a"), artifact("b"))
    await record(database, sent)
    again = replace(sent, file_name="copy.zip", sha256=sha("zipped anew"), time_created_s=9.0)
    assert await record(database, again) == releases.Recorded(sent, inserted=False)
    assert await database.run(generation.read) == 2


async def test_a_release_that_is_supplied_again_is_complete_again(database: Database) -> None:
    sent = release("1.0", artifact("a"))
    await record(database, sent)
    await database.run(releases.mark, incomplete={"1.0"})
    lost = await database.run(releases.get, "1.0")
    assert lost.state is ReleaseState.INCOMPLETE
    assert (await record(database, sent)).release.state is ReleaseState.COMPLETE
    assert await database.run(releases.get, "1.0") == sent


async def test_a_version_with_other_contents_is_refused_and_leaves_nothing(
    database: Database,
) -> None:
    sent = release("1.0", artifact("a"), artifact("b"))
    await record(database, sent)
    with pytest.raises(ReleaseConflict, match="'b'"):
        await record(database, release("1.0", artifact("a")))
    assert await database.run(releases.every) == (sent,)
    assert await database.run(generation.read) == 2


async def test_a_name_that_another_release_has_for_other_bytes_is_refused(
    database: Database,
) -> None:
    await record(database, release("1.0", artifact("a", "bytes")))
    with pytest.raises(ReleaseConflict) as refused:
        await record(database, release("2.0", artifact("b"), artifact("a", "other bytes")))
    assert refused.value.details()["recorded_version"] == "1.0"
    assert [each.version for each in await database.run(releases.every)] == ["1.0"]
    await database.run(releases.remove, "1.0")
    assert (await record(database, release("2.0", artifact("a", "other bytes")))).inserted


async def test_a_name_may_be_longer_than_what_a_database_indexes(database: Database) -> None:
    """Of random letters: what repeats itself is compressed first."""
    rng = random.Random(1)

    def text() -> str:
        return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=1024))

    tags = tuple(sorted((text(), text()) for _ in range(8)))
    one = ReleaseArtifact(text(), text(), sha("a"), 1, tags=tags)
    sent = release("1.0", one, replace(one, tags=tags[1:], sha256=sha("b")))
    await record(database, sent)
    assert await database.run(releases.get, "1.0") == sent
    with pytest.raises(ReleaseConflict, match=r"'2\.0'"):
        await record(database, release("2.0", replace(one, sha256=sha("c"))))
    assert (await record(database, release("2.0", one))).inserted


async def test_the_newer_release_has_the_higher_generation_whatever_the_clocks_say(
    database: Database,
) -> None:
    for version, time_s in (("b", 300.0), ("c", 100.0), ("a", 200.0)):
        sent = release(version, artifact("shared"), artifact(version))
        await record(database, replace(sent, time_created_s=time_s))
    found = await database.run(releases.every)
    assert {each.version: each.generation for each in found} == {"b": 2, "c": 3, "a": 4}


async def test_what_two_releases_share_stays_wanted_until_both_are_gone(
    database: Database,
) -> None:
    await record(database, release("1.0", artifact("shared"), artifact("old")))
    await record(database, release("2.0", artifact("shared"), artifact("new")))
    await database.run(releases.remove, "1.0")
    assert set((await database.run(snapshot.read)).wanted) == {sha("shared"), sha("new")}
    await database.run(releases.remove, "2.0")
    assert (await database.run(snapshot.read)).wanted == {}


async def test_the_target_release_is_not_removed_and_an_earlier_one_is(
    database: Database,
) -> None:
    for version in ("1.0", "2.0"):
        await record(database, release(version, artifact(version)))
        await database.run(target.choose, version, 1.0)
    with pytest.raises(TargetRelease, match=r"2\.0"):
        await database.run(releases.remove, "2.0")
    removed = await database.run(releases.remove, "1.0")
    assert removed.version == "1.0"
    assert await database.run(target.recent) == ("2.0",)


async def test_a_release_that_is_not_recorded_is_named(database: Database) -> None:
    for verb in (releases.get, releases.remove):
        with pytest.raises(ReleaseNotFound, match=r"9\.9"):
            await database.run(verb, "9.9")


async def test_pages_go_through_all_releases_once(database: Database) -> None:
    versions = [f"1.{number}" for number in range(5)]
    for version in versions:
        await record(database, release(version, artifact("shared"), artifact(version)))
    found: list[Release] = []
    after: str | None = None
    sizes = []
    while True:
        some, after = await database.run(releases.page, after, 2)
        found += some
        sizes.append(len(some))
        if after is None:
            break
    assert sizes == [2, 2, 1]
    assert tuple(found) == await database.run(releases.every)


async def test_the_last_page_is_known_to_be_the_last_when_it_is_full(database: Database) -> None:
    for version in ("1", "2"):
        await record(database, release(version, artifact("shared")))
    assert (await database.run(releases.page, None, 2))[1] is None


async def test_releases_are_marked_incomplete_and_complete_and_others_left_as_they_are(
    database: Database,
) -> None:
    for version in ("1", "2", "3"):
        await record(database, release(version, artifact(version)))

    async def incomplete() -> set[str]:
        found = await database.run(releases.every)
        return {each.version for each in found if each.state is ReleaseState.INCOMPLETE}

    await database.run(releases.mark, incomplete={"1", "2", "gone"})
    assert await incomplete() == {"1", "2"}
    await database.run(releases.mark, incomplete={"3"}, complete={"1", "gone"})
    assert await incomplete() == {"2", "3"}
    assert await database.run(generation.read) == 4


async def test_s1_a_page_ends_before_it_has_too_many_artifacts(database: Database) -> None:
    """A hundred releases of ten thousand artifacts would be a page that no client takes."""
    for version, named in (("1", 2), ("2", 1), ("3", 5), ("4", 1)):
        its = (artifact(f"{version} {number}") for number in range(named))
        await record(database, release(version, *its))
    pages, after, goes_on = [], None, True
    while goes_on:
        found, after = await database.run(
            partial(releases.page, after=after, limit=3, most_artifacts=3)
        )
        pages.append([each.version for each in found])
        goes_on = after is not None
    assert pages == [["1", "2"], ["3"], ["4"]]
