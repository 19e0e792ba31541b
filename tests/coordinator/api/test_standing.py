from __future__ import annotations

from dataclasses import replace

from coordinator.api.standing import Known, stand
from coordinator.replication.values import Inventory, SledInventory
from coordinator.values import Release, ReleaseArtifact, ReleaseState, Sled, SledPolicy, SledState
from depot.artifact import ArtifactHash, Generation

A, B, C = (ArtifactHash.of(name) for name in (b"a", b"b", b"c"))
SIZES = {A: 1, B: 10, C: 100}
SLEDS = tuple(
    Sled(name, f"http://{name}:1", f"http://{name}:2", state=SledState.OK) for name in ("s1", "s2")
)
RELEASE = Release(
    version="1.0",
    sha256=A,
    file_name="x.zip",
    time_created_s=0.0,
    allowed_expired=False,
    state=ReleaseState.COMPLETE,
    artifacts=(
        *(ReleaseArtifact(f"name-{size}", "1", sha256, size) for sha256, size in SIZES.items()),
        ReleaseArtifact("another name", "1", A, 1),
    ),
)
NOTHING_SEEN = Known(wanted=SIZES, sleds=SLEDS, releases=(RELEASE,), target="1.0")


def seen(*sleds: SledInventory) -> Known:
    return replace(
        NOTHING_SEEN, inventory=Inventory(generation=Generation(1), sizes=SIZES, sleds=sleds)
    )


ONE_LACKS = seen(
    SledInventory(id="s1", held={A: 2, B: 2, C: 1}),
    SledInventory(id="s2", held={A: 2}, arriving=frozenset({B})),
)


def test_a_sled_says_what_it_has_no_room_for_as_long_as_it_lacks_that() -> None:
    refused = {"s2": {B: "no room for b", C: "no room for c"}, "s1": {C: "none for c"}}
    has_come = {"s2": frozenset({B})}
    first, second = stand(replace(ONE_LACKS, no_room=refused)).sleds
    assert first.no_room is None
    assert second.no_room is not None
    assert (second.no_room.artifacts, second.no_room.size_bytes) == (2, 110)
    assert second.no_room.reason == refused["s2"][min(B, C)]
    _, second = stand(replace(ONE_LACKS, no_room=refused, came=has_come)).sleds
    assert second.no_room is not None
    assert (second.no_room.artifacts, second.no_room.reason) == (1, "no room for c")


def test_a_sled_names_its_datasets_that_are_out() -> None:
    out = ("dataset /b is missing",)
    found = seen(SledInventory(id="s1", held={A: 1}, unwell=out), SledInventory(id="s2"))
    assert [each.unwell for each in stand(found).sleds] == [out, ()]


def test_before_the_first_pass_everything_is_missing() -> None:
    found = stand(NOTHING_SEEN)
    assert [(each.artifacts_present, each.artifacts) for each in found.sleds] == [(0, 3), (0, 3)]
    assert (found.releases[0].missing, found.releases[0].fully_replicated) == (3, 0)


def test_the_artifacts_of_a_release_add_up() -> None:
    release = stand(ONE_LACKS).releases[0]
    assert (release.artifacts, release.target) == (3, True)
    assert (release.fully_replicated, release.in_flight, release.missing) == (1, 1, 1)


def test_a_sled_says_how_many_copies_it_has_and_what_it_lacks() -> None:
    first, second = stand(ONE_LACKS).sleds
    assert (first.copies, first.bytes_to_go, first.bytes_wanted) == ({"1": 1, "2": 2}, 0, 111)
    assert (second.copies, second.bytes_to_go, second.bytes_wanted) == ({"0": 2, "2": 1}, 110, 111)
    assert (second.in_flight, second.artifacts_present) == (1, 1)


def test_what_has_come_since_the_last_pass_counts() -> None:
    found = stand(replace(ONE_LACKS, came={"s2": frozenset({B, C})}))
    assert found.sleds[1].bytes_to_go == 0
    assert found.releases[0].fully_replicated == 3


def test_what_is_not_wanted_any_more_does_not_count() -> None:
    found = stand(replace(ONE_LACKS, wanted={A: 1}, came={"s2": frozenset({B})}))
    assert [each.artifacts for each in found.sleds] == [1, 1]
    assert [each.copies for each in found.sleds] == [{"2": 1}, {"2": 1}]


def test_of_an_expunged_sled_nothing_is_wanted() -> None:
    sleds = (SLEDS[0], replace(SLEDS[1], policy=SledPolicy.EXPUNGED))
    found = stand(replace(ONE_LACKS, sleds=sleds))
    assert found.releases[0].fully_replicated == 3
    assert (found.sleds[1].artifacts, found.sleds[1].policy) == (0, "expunged")


def test_in_a_fleet_without_sleds_nothing_is_replicated() -> None:
    assert stand(replace(NOTHING_SEEN, sleds=())).releases[0].missing == 3


def test_what_is_lost_is_named_by_every_name_it_has() -> None:
    lost = stand(replace(ONE_LACKS, lost=frozenset({A}))).releases[0].lost
    assert [(each.sha256, each.names) for each in lost] == [(str(A), ("name-1", "another name"))]
