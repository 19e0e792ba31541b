from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.database.naming import (
    MAX_NAMED,
    artifact_of,
    name_of,
    named,
    require_compatible,
    require_same,
)
from coordinator.errors import ReleaseConflict
from coordinator.values import ReleaseArtifact
from tests.coordinator.database.making import artifact, sha

TEXTS = st.sampled_from(["", "a", '\u00e9\0"', "\udc80"])
TAGS = st.dictionaries(TEXTS, TEXTS).map(lambda tags: tuple(sorted(tags.items())))


@given(TEXTS, TEXTS, st.none() | TEXTS, st.none() | TAGS)
@settings(max_examples=50)
def test_an_artifact_is_what_its_name_says(
    name: str, version: str, kind: str | None, tags: tuple[tuple[str, str], ...] | None
) -> None:
    one = ReleaseArtifact(name, version, sha("x"), 7, kind, tags)
    assert artifact_of(name_of(one), one.sha256, one.size_bytes) == one


def test_kind_tags_and_neither_tell_artifacts_apart() -> None:
    plain = ReleaseArtifact("a", "1", sha("x"), 1)
    kind = ReleaseArtifact("a", "1", sha("x"), 1, kind="os")
    tags = ReleaseArtifact("a", "1", sha("x"), 1, tags=(("board", "g"),))
    no_tags = ReleaseArtifact("a", "1", sha("x"), 1, tags=())
    assert len({name_of(each) for each in (plain, kind, tags, no_tags)}) == 4


def test_one_name_for_two_artifacts_of_a_release_is_refused_and_twice_the_same_is_one() -> None:
    assert len(named("1", [artifact("a"), artifact("a")])) == 1
    with pytest.raises(ReleaseConflict, match=r"'a' version '1\.0'") as refused:
        named("1", [artifact("a"), artifact("a", "else")])
    assert refused.value.details()["difference_count"] == 1


def test_a_version_with_other_contents_names_what_differs_on_either_side() -> None:
    both, removed, added = (name_of(artifact(name)) for name in ("both", "removed", "added"))
    recorded = {both: sha("one"), removed: sha("removed")}
    once = r"^release '1\.0' is recorded with other contents; first 'added' version '1\.0' "
    with pytest.raises(ReleaseConflict, match=once) as refused:
        require_same("1.0", recorded, {both: sha("other"), added: sha("added")})
    details = refused.value.details()
    assert details["version"] == details["recorded_version"] == "1.0"
    assert details["differences"] == [
        said(name, before, now)
        for name, before, now in (
            ("added", None, str(sha("added"))),
            ("both", str(sha("one")), str(sha("other"))),
            ("removed", str(sha("removed")), None),
        )
    ]


def said(name: str, recorded: str | None, sent: str | None) -> dict[str, object]:
    return {
        "name": name,
        "version": "1.0",
        "kind": "image",
        "recorded_sha256": recorded,
        "sent_sha256": sent,
    }


def test_two_releases_may_share_artifacts_and_have_their_own() -> None:
    shared, mine, theirs = (name_of(artifact(name)) for name in ("shared", "mine", "theirs"))
    require_compatible(
        "2", "1", {shared: sha("s"), theirs: sha("t")}, {shared: sha("s"), mine: sha("m")}
    )
    with pytest.raises(ReleaseConflict) as refused:
        require_compatible("2", "1", {shared: sha("s")}, {shared: sha("other")})
    assert refused.value.details()["recorded_version"] == "1"


def test_a_conflict_of_many_names_is_counted_and_not_all_named() -> None:
    names = [name_of(artifact(str(number))) for number in range(3 * MAX_NAMED)]
    with pytest.raises(ReleaseConflict) as refused:
        require_same("1", dict.fromkeys(names, sha("a")), dict.fromkeys(names, sha("b")))
    details = refused.value.details()
    assert details["difference_count"] == 3 * MAX_NAMED
    assert isinstance(details["differences"], list)
    assert len(details["differences"]) == MAX_NAMED
