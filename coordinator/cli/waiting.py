"""`depot-coordinator wait`: until the fleet has what it is to have.

Converged is a fleet in which every sled in service has confirmed the generation, or a later one,
and holds all that it is to hold; of a release, that every sled holds its artifacts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click

from agent.cli import options as types
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import plural, size
from agent.cli.output import Output, reporting
from agent.cli.progress import Meter, display
from coordinator.cli import options
from coordinator.cli.looking import Looks
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.cli.sleds import lacks_room
from coordinator.cli.status import in_service
from coordinator.replication_wire import ReleaseStandingBody, ReplicationBody, SledStandingBody
from depot.artifact import Generation

SHOWN: Final = 3
STUCK: Final = ("ahead", "refused", "unreachable")
OLD_S: Final = 5.0
"""What a coordinator said longer ago, though it was asked, is not told as if it were so now."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What is waited for: a generation, or a release."""

    generation: int
    version: str | None = None


@click.command()
@click.option(
    "--generation",
    type=types.generation,
    metavar="N",
    help="Wait for this generation or a later one. [default: the current one]",
)
@click.option("--release", "version", metavar="V", help="Wait for the artifacts of this release.")
@click.option(
    "--timeout",
    "timeout_s",
    type=types.Seconds(min=0),
    metavar="SECONDS",
    help="Give up after so long, with exit status 5. [default: never]",
)
@options.shared
def wait(
    common: Common, generation: Generation | None, version: str | None, timeout_s: float | None
) -> None:
    """Wait until every sled holds what it is to hold.

    Exit status 0 when the fleet has converged, 1 when an artifact is lost, 5 when it took too
    long.
    """
    with reporting(common) as output:
        if generation is not None and version is not None:
            raise usage("--generation and --release cannot both be given")
        asyncio.run(_wait(common, output, generation, version, timeout_s))


async def _wait(
    common: Common,
    output: Output,
    generation: Generation | None,
    version: str | None,
    timeout_s: float | None,
) -> None:
    async with coordinator(common) as client:
        looks = Looks(client, common.url, output, timeout_s)
        found = await looks.first()
        goal = Goal(found.generation if generation is None else int(generation), version)
        _check(goal, found)
        _fail_when_lost(output, goal, found)
        if list(what_is_left(goal, found)):
            found = await follow(looks, output, goal, found)
    tell_warnings(output, found.warnings)
    output.document(_document(goal, found, converged=True), [_converged(found)])


async def follow(
    looks: Looks, output: Output, goal: Goal, found: ReplicationBody
) -> ReplicationBody:
    """Look again and again until nothing is left, with a bar.

    Raises:
        Failure: something is lost, or the time is over.
    """
    with Meter(display(output), "filling") as meter:
        progress = Progress(meter, output, goal)
        while left := list(what_is_left(goal, found)):
            progress.show(found)
            if looks.over:
                raise _timed_out(output, goal, found, left, looks.silent_s)
            found = await looks.again()
            _fail_when_lost(output, goal, found)
        progress.show(found)
    return found


def what_is_left(goal: Goal, found: ReplicationBody) -> Iterator[str]:
    """What keeps the fleet from having converged, in words; nothing when it has."""
    sleds = in_service(found)
    if not sleds:
        yield "the fleet has no sleds in service"
    if goal.version is None and found.generation < goal.generation:
        yield f"the fleet is at generation {found.generation}"
        return
    if goal.version is not None:
        yield from _left_of_release(_release(goal.version, found), sleds)
    for sled in sleds:
        yield from _left_of_sled(goal, sled)


def _left_of_release(
    release: ReleaseStandingBody, sleds: Iterable[SledStandingBody]
) -> Iterator[str]:
    if lacking := release.in_flight + release.missing:
        yield f"{plural(lacking, 'artifact')} of release {release.version} not on every sled"
        for sled in sleds:
            if sled.no_room is not None:
                yield f"sled {sled.id} {lacks_room(sled.no_room)}"


def _left_of_sled(goal: Goal, sled: SledStandingBody) -> Iterator[str]:
    lacking = sled.artifacts - sled.artifacts_present
    if sled.state != "ok":
        # What it has is what it last said.
        yield f"sled {sled.id} is {sled.state or 'new'}: {sled.last_error or 'not asked yet'}"
    elif goal.version is None and (sled.generation or 0) < goal.generation:
        yield f"sled {sled.id} is at generation {sled.generation or 0}"
    elif goal.version is None and lacking:
        lacks = f"sled {sled.id} lacks {plural(lacking, 'artifact')}, {size(sled.bytes_to_go)}"
        yield lacks if sled.no_room is None else f"{lacks}, and {lacks_room(sled.no_room)}"


def _check(goal: Goal, found: ReplicationBody) -> None:
    if goal.version is not None:
        _release(goal.version, found)


def _release(version: str, found: ReplicationBody) -> ReleaseStandingBody:
    for release in found.releases:
        if release.version == version:
            return release
    raise Failure(
        f"no release {version!r} is recorded",
        ExitCode.REFUSED,
        code="NotFound",
        hint="`depot-coordinator release ls` shows them",
    )


class Progress:
    """What has moved since the first look, and which sleds are waited for besides that."""

    def __init__(self, meter: Meter, output: Output, goal: Goal) -> None:
        self._meter = meter
        self._output = output
        self._goal = goal
        self._most_bytes = 0
        self._told: set[str] = set()

    def show(self, found: ReplicationBody) -> None:
        """Move the bar."""
        sleds = in_service(found)
        to_go_bytes = sum(sled.bytes_to_go for sled in sleds)
        self._most_bytes = max(self._most_bytes, to_go_bytes)
        done = sum(1 for sled in sleds if not list(_left_of_sled(self._goal, sled)))
        self._meter.label(f"{done}/{plural(len(sleds), 'sled')}")
        self._meter.set(self._most_bytes - to_go_bytes, self._most_bytes or None)
        self._tell([sled for sled in sleds if _is_stuck(sled) and sled.id not in self._told])

    def _tell(self, stuck: list[SledStandingBody]) -> None:
        """No bar shows what these lack."""
        self._told |= {sled.id for sled in stuck}
        for sled in stuck[:SHOWN]:
            self._output.note(f"waiting for sled {sled.id}, which {_why_stuck(sled)}")
        if len(stuck) > SHOWN:
            self._output.note(f"waiting for {plural(len(stuck) - SHOWN, 'sled')} more like these")


def _is_stuck(sled: SledStandingBody) -> bool:
    return sled.state in STUCK or sled.no_room is not None


def _why_stuck(sled: SledStandingBody) -> str:
    if sled.state not in STUCK and sled.no_room is not None:
        return lacks_room(sled.no_room)
    return f"is {sled.state}: {sled.last_error or 'no reason known'}"


def _fail_when_lost(output: Output, goal: Goal, found: ReplicationBody) -> None:
    for release in found.releases:
        if release.state == "incomplete" and goal.version in (None, release.version):
            output.document(_document(goal, found, converged=False), [])
            raise Failure(
                f"release {release.version} has lost an artifact that is nowhere",
                ExitCode.WRONG_BYTES,
                code="Lost",
                hint="`depot-coordinator status` names it; upload the release again",
            )


def _timed_out(
    output: Output, goal: Goal, found: ReplicationBody, left: list[str], silent_s: float
) -> Failure:
    output.document(_document(goal, found, converged=False), [])
    more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    silent = f"; the coordinator has not said more for {silent_s:.0f} s" if silent_s > OLD_S else ""
    return Failure(
        f"not converged in time: {'; '.join(left[:SHOWN])}{more}{silent}",
        ExitCode.LOCAL,
        code="TimedOut",
        hint="`depot-coordinator status` shows the whole fleet",
    )


def _document(goal: Goal, found: ReplicationBody, *, converged: bool) -> dict[str, object]:
    return {
        "converged": converged,
        "generation": found.generation,
        "release": goal.version,
        "left": [] if converged else list(what_is_left(goal, found)),
    }


def tell_warnings(output: Output, warnings: Sequence[str]) -> None:
    """A fleet that holds everything may hold it on fewer disks than it should."""
    for warning in warnings[:SHOWN]:
        output.warning(warning)
    if len(warnings) > SHOWN:
        more = plural(len(warnings) - SHOWN, "problem")
        output.warning(f"{more} more: `depot-coordinator status` shows them")


def _converged(found: ReplicationBody) -> str:
    sleds = in_service(found)
    return f"converged: generation {found.generation}, {plural(len(sleds), 'sled')}"
