from __future__ import annotations

from agent.cli.changes import SHOWN, Change, adding
from depot.artifact import ArtifactConfig, ArtifactHash

A, B, C, *_ = MANY = [ArtifactHash.of(bytes([index])) for index in range(40)]


def lines(change: Change) -> list[str]:
    return [str(line) for line in change.lines()]


def test_a_change_names_what_is_added_and_what_is_dropped() -> None:
    change = Change(ArtifactConfig.make(4, [A, B]), ArtifactConfig.make(5, [B, C]))
    assert lines(change) == [
        "generation 4 -> generation 5: 1 added, 1 dropped, 1 kept",
        f"+ {C}",
        f"- {A}",
    ]
    assert change.document() == {
        "generation": 5,
        "previous_generation": 4,
        "changed": True,
        "artifacts": 2,
        "added": [str(C)],
        "dropped": [str(A)],
    }


def test_the_same_config_once_more_is_no_change() -> None:
    config = ArtifactConfig.make(4, [A])
    assert lines(Change(config, ArtifactConfig.make(4, [A]))) == [
        "generation 4: no change, 1 artifact"
    ]


def test_a_long_list_is_cut_for_people_and_whole_for_machines() -> None:
    change = Change(None, ArtifactConfig.make(1, MANY))
    assert len(lines(change)) == SHOWN + 2
    assert lines(change)[-1] == f"+ and {len(MANY) - SHOWN} more; --json lists all"
    assert change.document()["added"] == [str(artifact) for artifact in sorted(MANY)]


def test_dropping_more_than_half_is_called_out() -> None:
    before = ArtifactConfig.make(1, [A, B])
    assert not Change(before, ArtifactConfig.make(2, [A])).drops_most
    assert Change(before, ArtifactConfig.make(2, [])).drops_most
    assert not Change(None, ArtifactConfig.make(2, [])).drops_most


def test_adding_raises_the_generation_by_one_and_keeps_what_is_there() -> None:
    change = adding(ArtifactConfig.make(7, [A]), [B, C])
    assert change.after == ArtifactConfig.make(8, [A, B, C])


def test_adding_to_a_sled_without_a_config_starts_at_one() -> None:
    assert adding(None, [A]).after == ArtifactConfig.make(1, [A])


def test_adding_what_is_in_already_changes_nothing() -> None:
    change = adding(ArtifactConfig.make(7, [A, B]), [A])
    assert change.nothing
    assert change.after.generation == 7
