from __future__ import annotations

from coordinator.api.pruning import Pruned, Retention, judge
from coordinator.values import Release, ReleaseArtifact, ReleaseState, Sled
from depot.artifact import ArtifactHash, Generation


def release(version: str, number: int, *artifacts: str) -> Release:
    return Release(
        version=version,
        sha256=ArtifactHash.of(version.encode()),
        file_name=f"{version}.zip",
        # The oldest comes from a coordinator whose clock is ahead.
        time_created_s=1000.0 if number == 0 else float(number),
        allowed_expired=False,
        state=ReleaseState.COMPLETE,
        artifacts=tuple(
            ReleaseArtifact(name, "1", ArtifactHash.of(name.encode()), 1) for name in artifacts
        ),
        generation=Generation(number),
    )


RELEASES = [release(f"v{number}", number, f"of-{number}", "shared") for number in range(6)]


def judged(
    *targets: str, previous: int = 0, newest: int = 0, pinned: str = "", silent: Sled | None = None
) -> Pruned:
    held = {ArtifactHash.of(pinned.encode())} if pinned else set()
    silents = [] if silent is None else [silent]
    return judge(RELEASES, targets, held, Retention(previous, newest), silents)


def sled(at: int | None) -> Sled:
    generation = None if at is None else Generation(at)
    return Sled("s7", "http://s7:1", "http://s7:2", generation=generation)


def test_the_target_stays_whatever_the_retention_is() -> None:
    assert judged("v0").kept == (("v0", "the target"),)
    assert judged("v0").removed == ("v5", "v4", "v3", "v2", "v1")


def test_earlier_targets_and_the_newest_uploads_stay() -> None:
    found = judged("v2", "v1", "v0", previous=1, newest=2)
    assert dict(found.kept) == {
        "v5": "among the newest uploads",
        "v4": "among the newest uploads",
        "v2": "the target",
        "v1": "an earlier target",
    }
    assert found.removed == ("v3", "v0")


def test_what_a_sled_has_pinned_stays() -> None:
    assert dict(judged("v5", pinned="of-3").kept) == {
        "v5": "the target",
        "v3": "a sled has pinned an artifact of it",
    }
    assert judged("v5", pinned="shared").removed == ()


def test_what_a_sled_that_does_not_say_may_have_pinned_stays() -> None:
    """What was recorded after it last confirmed a config was never in one of its own."""
    found = judged("v5", silent=sled(2))
    assert found.removed == ("v4", "v3")
    assert {version: why for version, why in found.kept if "'s7'" in why} == dict.fromkeys(
        ("v2", "v1", "v0"), "sled 's7' does not say whether it has pinned any of it"
    )


def test_a_sled_that_never_confirmed_a_config_has_pinned_nothing_of_this_fleet() -> None:
    assert judged("v5", silent=sled(None)) == judged("v5")


def test_without_a_target_only_the_newest_uploads_stay() -> None:
    assert [version for version, _ in judged(newest=1).kept] == ["v5"]
