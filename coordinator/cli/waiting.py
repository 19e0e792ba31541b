"""`depot-coordinator wait`: until the fleet has what it is to have.

Converged is a fleet in which every sled in service has confirmed the generation, or a later one,
and holds all that it is to hold; of a release, that every sled holds its artifacts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import click

from agent.cli import options as types
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import plural, size
from agent.cli.output import Output, reporting
from agent.cli.progress import Meter, display
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.cli.status import in_service
from coordinator.client import CoordinatorClient
from coordinator.wire import ReleaseStandingBody, ReplicationBody
from depot.artifact import Generation

LOOK_AGAIN_S: Final = 0.5
SHOWN: Final = 3


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
    type=click.FloatRange(min=0),
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
    started_s = time.monotonic()
    async with coordinator(common) as client:
        found = await client.replication()
        goal = Goal(found.generation if generation is None else int(generation), version)
        _check(goal, found)
        with Meter(display(output), "replicating") as meter:
            while True:
                _show(meter, found)
                _fail_when_lost(output, goal, found)
                if not (left := list(what_is_left(goal, found))):
                    break
                spent_s = time.monotonic() - started_s
                if timeout_s is not None and spent_s >= timeout_s:
                    raise _timed_out(output, goal, found, left, timeout_s)
                found = await _look_again(client)
    output.document(_document(goal, found, converged=True), [_converged(found)])


async def _look_again(client: CoordinatorClient) -> ReplicationBody:
    await asyncio.sleep(LOOK_AGAIN_S)
    return await client.replication()


def what_is_left(goal: Goal, found: ReplicationBody) -> Iterator[str]:
    """What keeps the fleet from having converged, in words; nothing when it has."""
    sleds = in_service(found)
    if not sleds:
        yield "the fleet has no sleds in service"
    if goal.version is not None:
        release = _release(goal.version, found)
        lacking = release.in_flight + release.missing
        if lacking:
            yield f"{plural(lacking, 'artifact')} of release {goal.version} not on every sled"
        return
    if found.generation < goal.generation:
        yield f"the fleet is at generation {found.generation}"
    for sled in sleds:
        if sled.generation is None or sled.generation < goal.generation:
            why = sled.last_error or "it was not asked yet"
            yield f"sled {sled.id} has not confirmed generation {goal.generation}: {why}"
        elif sled.artifacts_present < sled.artifacts:
            lacking = sled.artifacts - sled.artifacts_present
            yield f"sled {sled.id} lacks {plural(lacking, 'artifact')}, {size(sled.bytes_to_go)}"


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


def _show(meter: Meter, found: ReplicationBody) -> None:
    sleds = in_service(found)
    to_go = sum(sled.bytes_to_go for sled in sleds)
    filled = sum(1 for sled in sleds if sled.artifacts_present == sled.artifacts)
    meter.label(f"{filled}/{plural(len(sleds), 'sled')} full")
    total = max(to_go, sum(sled.bytes_wanted for sled in sleds))
    meter.set(total - to_go, total)


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
    output: Output, goal: Goal, found: ReplicationBody, left: list[str], timeout_s: float
) -> Failure:
    output.document(_document(goal, found, converged=False), [])
    more = f"; and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return Failure(
        f"not converged after {timeout_s:g} s: {'; '.join(left[:SHOWN])}{more}",
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


def _converged(found: ReplicationBody) -> str:
    sleds = in_service(found)
    return f"converged: generation {found.generation}, {plural(len(sleds), 'sled')}"
