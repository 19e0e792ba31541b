"""What `wait` says when the coordinator stops answering before the time is over. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from agent.cli.failures import ExitCode, Failure
from agent.cli.output import Output
from coordinator.cli.looking import Looks
from coordinator.cli.options import Common
from coordinator.cli.waiting import Goal, follow
from coordinator.client import CoordinatorClient
from coordinator.replication_wire import ReplicationBody
from depot.errors import Unreachable
from tests.coordinator.cli.test_waiting import fleet
from tests.coordinator.replication.virtual import run

LACKING = fleet({"id": "sled-9", "artifacts_present": 0, "bytes_to_go": 2048})
AWAY = Unreachable("the coordinator is away")
QUIET = Output(Common(quiet=True))


class Scripted:
    """A coordinator that says what it is told to, and is then silent, or away."""

    def __init__(self, *says: ReplicationBody | Exception) -> None:
        self._says = list(says)

    async def replication(self) -> ReplicationBody:
        if not self._says:
            await asyncio.Event().wait()
        said = self._says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def looks(*says: ReplicationBody | Exception, timeout_s: float | None) -> Looks:
    return Looks(cast("CoordinatorClient", Scripted(*says)), "http://c", QUIET, timeout_s)


def failure(made: Callable[[], Looks]) -> Failure:
    async def main() -> None:
        its = made()
        await follow(its, QUIET, Goal(7), await its.first())

    with pytest.raises(Failure) as failed:
        run(main())
    return failed.value


def test_a_last_look_that_is_cut_off_leaves_what_was_said_before() -> None:
    failed = failure(lambda: looks(*[LACKING] * 48, timeout_s=25))
    assert str(failed) == "not converged in time: sled sled-9 lacks 3 artifacts, 2.0 KiB"
    assert failed.exit_code is ExitCode.LOCAL


def test_a_coordinator_that_is_silent_for_long_is_named_beside_what_it_said() -> None:
    failed = failure(lambda: looks(LACKING, timeout_s=25))
    assert str(failed).startswith("not converged in time: sled sled-9 lacks 3 artifacts")
    assert str(failed).endswith("; the coordinator has not said more for 25 s")


def test_so_is_one_that_is_away_until_the_time_is_over() -> None:

    failed = failure(lambda: looks(LACKING, *[AWAY] * 100, timeout_s=25))
    assert "sled-9 lacks" in str(failed)
    assert "has not said more for 25 s" in str(failed)


def test_a_coordinator_that_never_said_anything_is_what_is_wrong() -> None:
    failed = failure(lambda: looks(timeout_s=25))
    assert str(failed) == "the coordinator at http://c did not say in time how far the fleet is"


def test_a_coordinator_that_is_away_at_first_is_asked_again_within_the_time() -> None:
    failed = failure(lambda: looks(AWAY, AWAY, *[LACKING] * 100, timeout_s=25))
    assert str(failed) == "not converged in time: sled sled-9 lacks 3 artifacts, 2.0 KiB"


@pytest.mark.parametrize("timeout_s", [None, 0.0, 25.0])
def test_one_that_stays_away_is_what_is_wrong_and_without_an_end_at_once(
    timeout_s: float | None,
) -> None:
    async def main() -> float:
        its = looks(*[AWAY] * 100, timeout_s=timeout_s)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(Unreachable, match="the coordinator is away"):
            await its.first()
        return asyncio.get_running_loop().time() - began_s

    assert run(main()) == (timeout_s or 0.0)
