"""What `wait` and `status` make of the state of a fleet. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.cli.output import Output
from agent.cli.progress import Meter, display
from coordinator.cli.options import Common
from coordinator.cli.sleds import state_of
from coordinator.cli.status import lines, problems
from coordinator.cli.waiting import Goal, Progress, tell_warnings, what_is_left
from coordinator.replication_wire import ReplicationBody

SLED: dict[str, Any] = {
    "id": "s1",
    "agent_url": "http://a",
    "depot_url": "http://d",
    "policy": "in_service",
    "state": "ok",
    "generation": 7,
    "last_error": None,
    "last_seen": None,
    "artifacts": 3,
    "artifacts_present": 3,
    "in_flight": 0,
    "copies": {"2": 3},
    "bytes_wanted": 10,
    "bytes_to_go": 0,
}
RELEASE: dict[str, Any] = {
    "version": "1.0",
    "state": "complete",
    "target": False,
    "artifacts": 3,
    "fully_replicated": 3,
    "in_flight": 0,
    "missing": 0,
    "lost": [],
}
FLEET: dict[str, Any] = {
    "generation": 7,
    "coordinator_id": "c",
    "activation": "periodic",
    "quiescing": False,
    "uploads_running": 0,
    "last_pass": {
        "passes": 1,
        "running": False,
        "began": None,
        "ended": None,
        "error": None,
        "generation": 7,
    },
    "artifacts": {"replicated": 3, "in_flight": 0, "missing": 0, "lost": 0},
    "requests": {"last_run": {}, "lifetime": {}},
    "staging": {
        "state": "healthy",
        "artifacts": 0,
        "only_here": 0,
        "used_bytes": 0,
        "quota_bytes": 1,
    },
    "coordinators": [],
    "warnings": [],
}


def fleet(*sleds: dict[str, Any], **release: Any) -> ReplicationBody:
    document = {
        **FLEET,
        "sleds": tuple({**SLED, **each} for each in sleds or ({},)),
        "releases": ({**RELEASE, "lost": (), **release},),
        "coordinators": (),
        "warnings": (),
    }
    return ReplicationBody.model_validate(document)


@pytest.mark.parametrize("goal", [Goal(7), Goal(3), Goal(7, "1.0")])
def test_a_fleet_that_holds_everything_has_converged(goal: Goal) -> None:
    assert list(what_is_left(goal, fleet())) == []


def test_a_fleet_without_sleds_has_not_converged() -> None:
    found = fleet({"policy": "expunged"})
    assert list(what_is_left(Goal(7), found)) == ["the fleet has no sleds in service"]


def test_a_generation_that_is_still_to_come_is_all_there_is_to_say() -> None:
    assert list(what_is_left(Goal(9), fleet({"generation": 1}))) == ["the fleet is at generation 7"]


@pytest.mark.parametrize("state", ["ahead", "unreachable", "refused", "behind", None])
def test_a_sled_that_is_not_ok_is_waited_for_whatever_it_had(state: str | None) -> None:
    for goal in (Goal(7), Goal(7, "1.0")):
        [left] = what_is_left(goal, fleet({}, {"id": "s2", "state": state, "generation": 50}))
        assert left.startswith("sled s2 is ")


def test_a_sled_that_has_not_confirmed_or_lacks_something_is_waited_for() -> None:
    behind, lacking = {"generation": 6}, {"id": "s2", "artifacts_present": 2, "bytes_to_go": 2048}
    assert list(what_is_left(Goal(7), fleet(behind, lacking))) == [
        "sled s1 is at generation 6",
        "sled s2 lacks 1 artifact, 2.0 KiB",
    ]


def test_for_a_release_only_its_own_artifacts_count() -> None:
    found = fleet({"artifacts_present": 0}, in_flight=1, missing=1, fully_replicated=1)
    assert list(what_is_left(Goal(7, "1.0"), found)) == [
        "2 artifacts of release 1.0 not on every sled"
    ]


def test_the_status_names_what_is_lost_and_the_remedy_for_a_sled_that_is_ahead() -> None:
    lost = ({"sha256": "a" * 64, "names": ("host", "phase-2")},)
    ahead = {"state": "ahead", "generation": 50, "last_error": "is at generation 50"}
    first, second = problems(fleet(ahead, state="incomplete", lost=lost))
    assert "has lost host (aaaaaaaaaaaa…)" in first
    assert "sled reset s1`" in second
    assert "generation advance 51`" in second


def test_a_sled_that_is_short_of_a_dataset_is_not_just_ok() -> None:
    out = ("dataset /b is missing (no such directory)",)
    whole, short = fleet({}, {"id": "s2", "unwell": out}).sleds
    assert [state_of(sled).plain for sled in (whole, short)] == ["ok", "ok, 1 dataset out"]


@pytest.mark.parametrize(
    ("release", "said"),
    [
        ({}, "everywhere"),
        ({"target": True}, "everywhere, target"),
        ({"fully_replicated": 2, "missing": 1}, "spreading"),
        ({"state": "incomplete", "fully_replicated": 2, "missing": 1}, "incomplete"),
    ],
)
def test_a_release_that_a_sled_lacks_is_not_called_complete(
    release: dict[str, Any], said: str
) -> None:
    found = fleet(**release)
    output = Output(Common())
    (row,) = (line for line in lines(found, output) if str(line).endswith("1.0"))
    assert str(row).startswith(f"{said}  ")


def test_the_status_tells_how_old_it_is() -> None:
    found = fleet()
    began = datetime.now(UTC) - timedelta(seconds=125)
    last = found.last_pass.model_copy(update={"began": began})
    output = Output(Common())
    told = map(str, lines(found.model_copy(update={"last_pass": last}), output))
    (passes,) = (line for line in told if line.startswith("passes"))
    assert "2 minutes ago" in passes


FULL = {
    "artifacts_present": 1,
    "bytes_to_go": 2 << 20,
    "no_room": {"artifacts": 2, "size_bytes": 2 << 20, "reason": "no dataset has room for it"},
}


def test_a_sled_that_is_full_is_a_problem_with_the_bytes_the_reason_and_the_remedy() -> None:
    (problem,) = problems(fleet({}, {"id": "s2", **FULL}))
    assert problem == (
        "sled s2 has no room for 2 artifacts (2.0 MiB): raise its storage.quota, or remove "
        "releases; it says: no dataset has room for it"
    )


def test_a_wait_for_a_sled_that_is_full_says_so() -> None:
    (left,) = what_is_left(Goal(7), fleet({}, {"id": "s2", **FULL}))
    assert left.startswith("sled s2 lacks 2 artifacts, 2.0 MiB, and has no room for 2 artifacts")


def test_a_wait_for_a_release_names_the_sled_that_has_no_room() -> None:
    found = fleet({}, {"id": "s2", **FULL}, missing=2, fully_replicated=1)
    assert [left.split(",")[0] for left in what_is_left(Goal(7, "1.0"), found)] == [
        "2 artifacts of release 1.0 not on every sled",
        "sled s2 has no room for 2 artifacts (2.0 MiB): raise its storage.quota",
    ]


def test_the_bar_of_a_wait_names_a_sled_that_is_full_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output(Common())
    with Meter(display(output), "filling") as meter:
        progress = Progress(meter, output, Goal(7))
        for _ in range(2):
            progress.show(fleet({"id": "s2", **FULL}))
    told = capsys.readouterr().err
    assert told.count("waiting for sled s2, which has no room for 2 artifacts") == 1


def test_a_wait_that_ends_well_warns_of_what_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    tell_warnings(Output(Common()), [f"sled s{number} lost a disk" for number in range(5)])
    told = capsys.readouterr().err
    assert "warning: sled s2 lost a disk" in told
    assert "warning: 2 problems more: `depot-coordinator status` shows them" in told
