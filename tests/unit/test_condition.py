"""What moves the condition of a dataset, decided without one."""

from __future__ import annotations

import errno

import pytest

from depot.mirrors.condition import Condition, MirrorState, casts_doubt, is_own_want
from depot.os_errors import SyncFailed

HEALTHY = Condition(MirrorState.HEALTHY)


def test_a_file_that_is_not_there_says_nothing_about_the_dataset() -> None:
    assert HEALTHY.after(FileNotFoundError(errno.ENOENT, "")) == HEALTHY


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_dataset_without_room_stays_healthy(code: int) -> None:
    after = HEALTHY.after(OSError(code, ""))
    assert (after.state, after.full, after.failures) == (MirrorState.HEALTHY, True, 0)
    assert after.over_quota == (code == errno.EDQUOT)


def test_a_sync_that_failed_for_want_of_room_is_a_failed_sync() -> None:
    after = HEALTHY.after(SyncFailed(errno.ENOSPC, ""))
    assert (after.state, after.full, after.doubtful) == (MirrorState.SUSPECT, False, True)


def test_a_device_that_failed_once_stays_doubtful_through_other_failures() -> None:
    after = HEALTHY.after(OSError(errno.EIO, "")).after(OSError(errno.ETIMEDOUT, ""))
    assert (after.state, after.doubtful, after.failures) == (MirrorState.SUSPECT, True, 2)


def test_a_failure_takes_the_permission_to_join_back() -> None:
    joining = Condition.on_arrival(None, doubtful=False)
    assert joining.joining
    assert not joining.after(OSError(errno.EROFS, "")).joining


@pytest.mark.parametrize(
    ("problem", "doubtful"),
    [(OSError(errno.EIO, ""), False), (SyncFailed(errno.EIO, ""), True)],
    ids=["write", "sync"],
)
def test_of_what_comes_only_a_failed_sync_leaves_doubt(problem: OSError, doubtful: bool) -> None:
    arrived = Condition.on_arrival(problem, doubtful=False)
    assert (arrived.state, arrived.joining) == (MirrorState.SUSPECT, False)
    assert arrived.doubtful == doubtful


def test_a_doubtful_dataset_that_comes_back_does_not_join_before_it_has_recovered() -> None:
    away = HEALTHY.after(SyncFailed(errno.EIO, "")).gone("no such path", released=False)
    assert (away.state, away.doubtful) == (MirrorState.MISSING, True)

    back = Condition.on_arrival(None, doubtful=away.doubtful)
    assert (back.state, back.joining, back.doubtful) == (MirrorState.SUSPECT, False, True)

    again = back.recovered().joined()
    assert again == HEALTHY


def test_a_released_dataset_stays_released_when_it_is_lost_once_more() -> None:
    released = HEALTHY.gone("released", released=True)
    assert released.gone("no such path", released=False).released


def test_a_failed_sync_is_never_a_want_of_this_process() -> None:
    assert is_own_want(OSError(errno.EMFILE, ""))
    assert not is_own_want(SyncFailed(errno.EMFILE, ""))
    assert casts_doubt(SyncFailed(errno.EMFILE, ""))
