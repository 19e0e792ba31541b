"""`depot-coordinator target`: the release that the fleet is to run."""

from __future__ import annotations

import asyncio

import click

from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator


@click.group(short_help="The release that the fleet is to run.")
@options.shared_group
def target() -> None:
    """The release that the fleet is to run; it is never removed or pruned."""


@target.command("show")
@options.shared
def show(common: Common) -> None:
    """Show the target release."""
    with reporting(common) as output:
        asyncio.run(_show(common, output))


@target.command("set")
@click.argument("version", metavar="VERSION")
@options.shared
def set_(common: Common, version: str) -> None:
    """Choose the target release: one that is recorded and complete."""
    with reporting(common) as output:
        asyncio.run(_set(common, output, version))


async def _show(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        version = await client.target_release()
    output.document({"version": version}, [version or "no target release"])


async def _set(common: Common, output: Output, version: str) -> None:
    async with coordinator(common) as client:
        await client.set_target_release(version)
    output.document({"version": version}, [f"the target is release {version}"])
