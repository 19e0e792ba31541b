from __future__ import annotations

import pytest

from coordinator.replication.verdict import MAX_WAIT_S, Kind, judge
from coordinator.values import SledState
from depot.artifact import Generation
from depot.errors import Refused, Unreachable

SEVEN = Generation(7)


def refused(status: int, code: str | None = None, **details: object) -> Refused:
    return Refused("http://sled", status, remote_code=code, remote_details=details)


@pytest.mark.parametrize(
    ("error", "kind", "state"),
    [
        (refused(409, "CONFIG_GENERATION", current_generation=9), Kind.AHEAD, SledState.AHEAD),
        (refused(409, "ARTIFACT_GENERATION", current_generation=9), Kind.AHEAD, SledState.AHEAD),
        (refused(409, "ARTIFACT_GENERATION", current_generation=5), Kind.BEHIND, SledState.BEHIND),
        (
            refused(409, "CONFIG_GENERATION", current_generation=7),
            Kind.OTHER_CONTENTS,
            SledState.REFUSED,
        ),
        (refused(400, "NoConfig"), Kind.BEHIND, SledState.BEHIND),
        (refused(400, "ArtifactInUse"), Kind.PINNED, SledState.REFUSED),
        (refused(400, "HashMismatch"), Kind.MISMATCH, SledState.REFUSED),
        (refused(400, "InvalidRequest"), Kind.REFUSED, SledState.REFUSED),
        (refused(429, "TooManyPuts"), Kind.BUSY, SledState.REFUSED),
        (refused(507, "QuotaExceeded"), Kind.FULL, SledState.REFUSED),
        (refused(502, "DepotCopy"), Kind.SOURCE, SledState.REFUSED),
        (refused(503, "ShuttingDown"), Kind.UNREACHABLE, SledState.UNREACHABLE),
        (refused(503, "NoDataset"), Kind.REFUSED, SledState.REFUSED),
        (refused(404), Kind.REFUSED, SledState.REFUSED),
        (Unreachable("no answer"), Kind.UNREACHABLE, SledState.UNREACHABLE),
        (TimeoutError(), Kind.UNREACHABLE, SledState.UNREACHABLE),
        (FileNotFoundError(2, "gone"), Kind.LOCAL, SledState.REFUSED),
    ],
)
def test_each_way_to_fail_is_told_apart(error: Exception, kind: Kind, state: SledState) -> None:
    verdict = judge(error, SEVEN)
    assert (verdict.kind, verdict.state) == (kind, state)


@pytest.mark.parametrize("current", [None, True, "9", -1, 2**63, 9.0])
def test_a_conflict_that_names_no_generation_is_a_refusal_and_nothing_more(current: object) -> None:
    error = refused(409, "CONFIG_GENERATION", current_generation=current)
    assert judge(error, SEVEN).kind is Kind.REFUSED


def test_a_sled_that_is_ahead_is_shown_with_the_remedies() -> None:
    error = refused(409, "CONFIG_GENERATION", current_generation=12)
    reason = judge(error, SEVEN).reason
    assert "12" in reason
    assert "reset" in reason
    assert "advance the generation" in reason


def test_a_defect_of_the_coordinator_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ZeroDivisionError):
        judge(ZeroDivisionError(), SEVEN)


@pytest.mark.parametrize(("said", "wait_s"), [(None, 0.0), (0, 0.0), (5, 5.0), (10**9, MAX_WAIT_S)])
@pytest.mark.parametrize("status", [429, 507])
def test_who_says_when_to_ask_again_is_believed_within_bounds(
    status: int, said: int | None, wait_s: float
) -> None:
    error = refused(status)
    error.retry_after_s = said
    verdict = judge(error, SEVEN)
    assert verdict.wait_s == wait_s
    assert ("wants to be asked again in" in verdict.reason) is bool(wait_s)
