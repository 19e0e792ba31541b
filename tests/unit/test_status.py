"""Readiness and warnings: pure judgements of a store's status."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pytest

from agent.copies.record import CopyRecord, CopyState
from agent.duties import DutyState
from agent.events import EventLogHealth
from agent.status import (
    MAX_ARTIFACTS_NAMED,
    MAX_WARNINGS,
    artifacts_body,
    bounded,
    does_not_fit,
    held_until,
    reasons_not_ready,
    warnings,
)
from depot.artifact import ArtifactHash, Generation
from depot.store_status import DatasetStatus, StoreStatus

DATASET = DatasetStatus(
    path="/m2/a",
    dataset_id=None,
    device=None,
    mounted=True,
    state="healthy",
    full=False,
    last_error=None,
    quota_bytes=1,
    used_bytes=0,
    reserved_bytes=0,
    available_bytes=1,
    artifacts=0,
)
STORE = StoreStatus(
    sled_id="sled",
    epoch=0,
    generation=None,
    config_digest=None,
    ledger="empty",
    generation_certain=True,
    datasets=(DATASET, replace(DATASET, path="/m2/b", state="missing")),
    under_replicated=(),
    warnings=(),
    puts_running=0,
)
EVENTS = EventLogHealth("epoch", 0, 0, True, 0, None)


@pytest.mark.parametrize("ledger", ["clear", "empty", "behind"])
def test_one_healthy_dataset_and_a_ledger_that_is_known_are_enough(
    ledger: Literal["clear", "empty", "behind"],
) -> None:
    assert not list(reasons_not_ready(replace(STORE, ledger=ledger)))


@pytest.mark.parametrize("state", ["suspect", "missing"])
def test_without_a_healthy_dataset_a_sled_is_not_ready(
    state: Literal["suspect", "missing"],
) -> None:
    datasets = (replace(DATASET, state=state),)
    assert list(reasons_not_ready(replace(STORE, datasets=datasets))) == ["no healthy dataset"]


@pytest.mark.parametrize("ledger", ["conflicted", "unknown"])
def test_a_ledger_that_nothing_may_be_built_on_is_not_ready(
    ledger: Literal["conflicted", "unknown"],
) -> None:
    assert len(list(reasons_not_ready(replace(STORE, ledger=ledger)))) == 1


def test_a_sled_where_all_is_well_warns_of_nothing() -> None:
    assert not list(warnings(STORE, EVENTS, [DutyState("scrub", failures=3, last_error="old")]))


def test_everything_an_operator_must_act_on_is_said() -> None:
    said = list(
        warnings(
            replace(STORE, warnings=("two datasets are on one device",)),
            replace(EVENTS, persistent=False, last_error="disk full"),
            [DutyState("scrub", True, 2, "OSError: EIO")],
        )
    )
    assert said == [
        "two datasets are on one device",
        "events are kept in memory only: disk full",
        "scrub keeps failing (2 times): OSError: EIO",
    ]


MISSING = tuple(ArtifactHash.of(bytes([n])) for n in range(3))
SMALL = replace(STORE, missing=MISSING, datasets=(replace(DATASET, available_bytes=36 << 20),))


def copy_of(sha256: ArtifactHash, state: CopyState, size_bytes: int | None) -> CopyRecord:
    return CopyRecord(
        copy_id=f"copy of {sha256}",
        sha256=sha256,
        generation=Generation(1),
        sources=(),
        state=state,
        bytes_done=0,
        bytes_total=size_bytes,
        started_at=0.0,
    )


def test_what_is_missing_for_want_of_room_is_counted_with_the_largest_and_the_room() -> None:
    failed = [
        copy_of(each, "failed", size << 20)
        for each, size in zip(MISSING, (60, 50, 36), strict=True)
    ]
    assert list(does_not_fit(SMALL, failed)) == [
        "2 missing artifacts do not fit: the largest needs 60.0 MiB, and no dataset has more than "
        "36.0 MiB free; raise storage.quota (or what the disk has), or drop artifacts from the "
        "config"
    ]
    (said,) = does_not_fit(SMALL, failed[:1])
    assert said.startswith("1 missing artifact does not fit: it needs 60.0 MiB, and")


def test_room_is_not_what_is_wanting_where_anything_else_is() -> None:
    elsewhere = ArtifactHash.of(b"dropped from the config")
    for copies in (
        [],
        [copy_of(MISSING[0], "failed", None)],
        [copy_of(MISSING[0], "failed", 36 << 20)],
        [copy_of(elsewhere, "failed", 60 << 20)],
        [copy_of(MISSING[0], "failed", 60 << 20), copy_of(MISSING[0], "running", 60 << 20)],
    ):
        assert not list(does_not_fit(SMALL, copies))
    missing = replace(SMALL, datasets=(replace(DATASET, state="missing"),))
    assert not list(does_not_fit(missing, [copy_of(MISSING[0], "failed", 60 << 20)]))


def test_an_event_log_that_began_anew_is_said_too() -> None:
    problem = "events.sqlite3 was corrupt; it is kept"
    assert list(warnings(STORE, replace(EVENTS, last_error=problem), [])) == [problem]


def test_under_replicated_artifacts_are_all_counted_and_some_named() -> None:
    lacking = tuple(ArtifactHash.of(bytes([n % 256, n // 256])) for n in range(1000))
    body = artifacts_body(lacking)
    assert body.count == 1000
    assert body.artifacts == tuple(str(a) for a in lacking[:MAX_ARTIFACTS_NAMED])


def test_a_grace_period_is_told_until_it_is_over() -> None:
    assert held_until(100.0, 99.0) == datetime.fromtimestamp(100, UTC)
    assert held_until(100.0, 100.0) is None
    assert held_until(0.0, 100.0) is None


@pytest.mark.parametrize("more", [-1, 0, 1, 5])
def test_warnings_are_bounded_and_the_rest_is_counted(more: int) -> None:
    said = [f"warning {n}" for n in range(MAX_WARNINGS + more)]
    assert bounded(said) == tuple(said[:MAX_WARNINGS]) + (f"and {more} more",) * (more > 0)
