"""Leaving, with a database that is away."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from coordinator.api.quiescing import Quiesce
from coordinator.errors import DatabaseUnavailable


class Desk:
    running = 0
    quiescing: str | None = None


@dataclass
class Report:
    passes: int = 0

    def current(self) -> Report:
        return self


class Cycle:
    def __init__(self, passes: int = 0) -> None:
        self.activated = 0
        self.reporting = Report(passes)

    def activate(self) -> None:
        self.activated += 1


class View:
    """The first answers are `said`; an error is raised."""

    def __init__(self, *said: list[str] | Exception) -> None:
        self.said = list(said)
        self.after: set[int] = set()

    async def only_here(self, *, after_pass: int) -> list[str]:
        self.after.add(after_pass)
        answer = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def quiesce(view: View, desk: Desk | None = None, cycle: Cycle | None = None) -> Quiesce:
    return Quiesce(desk or Desk(), cycle or Cycle(), view)  # type: ignore[arg-type]


async def test_f5_whoever_ends_has_a_pass_made_also_with_manual_activation() -> None:
    cycle = Cycle()
    await quiesce(View(["one"], []), cycle=cycle).settle(60.0)
    assert cycle.activated == 1


async def test_f5_only_a_pass_that_begins_now_says_that_sleds_have_it() -> None:
    """Also when SIGTERM comes after a quiesce: that one's pass is new enough."""
    view, cycle = View(["one"], []), Cycle(passes=7)
    leaving = quiesce(view, cycle=cycle)
    leaving.begin()
    cycle.reporting.passes = 8
    await leaving.settle(60.0)
    assert view.after == {7}


async def test_what_the_database_does_not_say_is_no_reason_to_believe_that_all_is_safe(
    logged: list[MutableMapping[str, Any]],
) -> None:
    away = View(DatabaseUnavailable("away"))
    await quiesce(away).settle(0.01)
    assert [entry["event"] for entry in logged][-1] == (
        "nobody knows what stays in the staging depot: the database is away"
    )


async def test_nothing_is_said_when_everything_is_somewhere_else(
    logged: list[MutableMapping[str, Any]],
) -> None:
    desk = Desk()
    await quiesce(View([]), desk).settle(60.0)
    assert desk.quiescing is not None
    assert not logged


async def test_time_that_is_up_is_told_with_what_stays(
    logged: list[MutableMapping[str, Any]],
) -> None:
    await quiesce(View(["one", "two"])).settle(0.0)
    assert logged[-1]["artifacts"] == 2
