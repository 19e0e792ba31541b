"""`depot-coordinator snapshot held` and `drop`: snapshots that the sleds hold, by the API."""

from __future__ import annotations

import asyncio

import click

from agent.cli.formats import Column, moment, plural, size, table
from agent.cli.output import Output, reporting
from agent.snapshots.fleet_wire import SnapshotBody, SnapshotsBody
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator

_COLUMNS = (
    Column("NEWEST VERSION"),
    Column("AT"),
    Column("VERSIONS", right=True),
    Column("STORED", right=True),
    Column("NAME"),
)


@click.command("held", short_help="List the snapshots that the sleds hold.")
@options.shared
def held(common: Common) -> None:
    """List the snapshots that every sled is to hold: those in fleet+http:// archives.

    What is stored counts once here; each sled holds all of it.
    """
    with reporting(common) as output:
        asyncio.run(_held(common, output))


@click.command("drop", short_help="Have the sleds drop a snapshot.")
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def drop(common: Common, name: str, yes: bool) -> None:
    """Forget a snapshot that the sleds hold, with all its versions; they drop it."""
    with reporting(common) as output:
        if not yes:
            found = asyncio.run(_found(common, name))
            its = plural(len(found.items), "version")
            confirm(f"Drop snapshot {name} from every sled? {its}, also the newest.")
        asyncio.run(_drop(common, output, name))


async def _held(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        items = await client.snapshots()
    rows = [
        [
            each.newest.version,
            moment(each.newest.time_created),
            str(each.versions),
            size(each.stored_bytes),
            each.name,
        ]
        for each in items
    ]
    document = SnapshotsBody(items=items).model_dump(mode="json")
    output.document(document, table(_COLUMNS, rows, width=output.width))
    if not items:
        output.note("the sleds hold no snapshot")


async def _found(common: Common, name: str) -> SnapshotBody:
    async with coordinator(common) as client:
        return await client.snapshot(name)


async def _drop(common: Common, output: Output, name: str) -> None:
    async with coordinator(common) as client:
        await client.drop_snapshot(name)
    output.document({"name": name, "dropped": True}, [f"{name}: dropped"])
