"""`depot-coordinator activate` and `quiesce`: a pass now, and an orderly end."""

from __future__ import annotations

import asyncio

import click

from agent.cli.formats import plural
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator


@click.command(short_help="Look at the whole fleet now.")
@options.shared
def activate(common: Common) -> None:
    """Have the coordinator look at the whole fleet now, and go on from there."""
    with reporting(common) as output:
        asyncio.run(_activate(common, output))


@click.command(short_help="End when nothing is only in the staging.")
@options.shared
def quiesce(common: Common) -> None:
    """Have the coordinator end, as soon as nothing is only in its staging.

    It takes no more uploads from now on. `status` says how much is only there yet.
    """
    with reporting(common) as output:
        asyncio.run(_quiesce(common, output))


async def _activate(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        await client.activate()
    output.document({"activated": True}, ["a pass begins"])


async def _quiesce(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        only_here = await client.quiesce()
    left = f"; {plural(only_here, 'artifact')} to go to a sled first" if only_here else ""
    document = {"quiescing": True, "only_here": only_here}
    output.document(document, [f"the coordinator takes no more uploads and ends{left}"])
