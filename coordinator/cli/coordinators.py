"""`depot-coordinator coordinator`: the coordinators of the fleet, and forgetting one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from agent.cli.failures import refused
from agent.cli.formats import Column, age, moment, plural, table
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.replication_wire import CoordinatorBody

_COLUMNS: Final = (
    Column("COORDINATOR"),
    Column("HOST"),
    Column("FIRST SEEN"),
    Column("SEEN"),
    Column("STAGED", right=True),
    Column("ONLY THERE", right=True),
)


@click.group("coordinator", short_help="The coordinators of the fleet.")
@options.shared_group
def coordinator_group() -> None:
    """The coordinators of the fleet: list them, forget one that is gone."""


@coordinator_group.command("ls")
@options.shared
def ls(common: Common) -> None:
    """List every coordinator, and what is only in its staging."""
    with reporting(common) as output:
        asyncio.run(_ls(common, output))


@coordinator_group.command("forget", short_help="Count no more on one that is gone for good.")
@click.argument("coordinator_id", metavar="ID")
@click.option("--force", is_flag=True, help="Also one that was there a moment ago.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def forget(common: Common, coordinator_id: str, force: bool, yes: bool) -> None:
    """Count on the staging of a coordinator no more that is gone for good.

    What was only there is lost, and its releases are incomplete until they are uploaded again. A
    coordinator that is there after all says so, and nothing was lost. The beginning of an ID will
    do, if no other one begins like that.
    """
    with reporting(common) as output:
        found = asyncio.run(_find(common, coordinator_id))
        if not yes:
            confirm(_question(found))
        asyncio.run(_forget(common, output, found.id, force=force))


async def _ls(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.coordinators()
    rows = [_row(each, own=each.id == found.coordinator_id) for each in found.items]
    output.document(found.model_dump(mode="json"), table(_COLUMNS, rows, width=output.width))


async def _find(common: Common, beginning: str) -> CoordinatorBody:
    async with coordinator(common) as client:
        return chosen((await client.coordinators()).items, beginning)


def chosen(items: Sequence[CoordinatorBody], beginning: str) -> CoordinatorBody:
    """The coordinator whose id that is, or the beginning of it.

    Raises:
        Failure: it is that of none, or of more than one.
    """
    found = [each for each in items if each.id == beginning]
    found = found or [each for each in items if beginning and each.id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    if not found:
        message, code = f"no coordinator has the id {beginning!r}", "NotFound"
    else:
        named = ", ".join(each.id for each in found)
        message, code = f"{beginning!r} is the beginning of more than one: {named}", "Ambiguous"
    raise refused(code, message, hint="`depot-coordinator coordinator ls` shows them")


def _question(found: CoordinatorBody) -> str:
    lost = ""
    if found.only_there:
        lost = f", and with it {plural(found.only_there, 'artifact')} that only it has"
    return f"Forget coordinator {found.id} on {found.host or 'an unknown host'}{lost}?"


async def _forget(common: Common, output: Output, coordinator_id: str, *, force: bool) -> None:
    async with coordinator(common) as client:
        await client.forget_coordinator(coordinator_id, force=force)
    document = {"id": coordinator_id, "forgotten": True}
    output.document(document, [f"{coordinator_id} is forgotten"])


def _row(one: CoordinatorBody, *, own: bool) -> tuple[str | Text, ...]:
    return (
        Text(f"{one.id} (this one)" if own else one.id),
        one.host or "-",
        "-" if one.first_seen is None else moment(one.first_seen),
        "-" if one.last_seen is None else age(_passed_s(one.last_seen)),
        str(one.staged),
        Text(str(one.only_there), style="yellow" if one.only_there else ""),
    )


def _passed_s(time: datetime) -> float:
    return (datetime.now(UTC) - time).total_seconds()
