"""`depot-coordinator history`: the recent requests to sleds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import click
from rich.text import Text

from agent.cli.formats import Column, moment, short, table
from agent.cli.options import Number
from agent.cli.output import Output, reporting
from agent.cli.resolving import all_whole, hash_or_prefix, resolve
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.client import CoordinatorClient
from coordinator.replication_wire import RequestBody
from coordinator.values import MAX_HISTORY
from depot.artifact import ArtifactHash

_COLUMNS: Final = (
    Column("TIME"),
    Column("SLED"),
    Column("OPERATION"),
    Column("GENERATION", right=True),
    Column("ARTIFACT"),
    Column("SOURCE"),
    Column("ERROR", prose=True),
)


@click.command(short_help="List the recent requests to sleds.")
@click.option(
    "--artifact",
    type=hash_or_prefix,
    metavar="SHA256",
    help="Only about this artifact; the first 8 characters do, for one of a release.",
)
@click.option("--sled", "sled_id", metavar="ID", help="Only to this sled.")
@click.option(
    "--limit",
    "-n",
    type=Number(1, MAX_HISTORY),
    default=50,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@click.option("--long", is_flag=True, help="Show whole hashes.")
@options.shared
def history(
    common: Common, artifact: str | None, sled_id: str | None, limit: int, long: bool
) -> None:
    """List the recent requests to sleds, the newest last; the fleet remembers 4,096."""
    with reporting(common) as output:
        asyncio.run(_history(common, output, artifact, sled_id, limit, long=long))


async def _history(
    common: Common,
    output: Output,
    artifact: str | None,
    sled_id: str | None,
    limit: int,
    *,
    long: bool,
) -> None:
    async with coordinator(common) as client:
        wanted = None if artifact is None else await whole_hash(client, artifact)
        newest_first = await client.history(artifact=wanted, sled_id=sled_id, limit=limit)
    # Like a log: what is new is where the eye is when the command has ended.
    found = list(reversed(newest_first))
    document = {"items": [each.model_dump(mode="json") for each in found]}
    output.document(document, _lines(found, output.width, long=long) if found else ["no requests"])


async def whole_hash(client: CoordinatorClient, typed: str) -> ArtifactHash:
    """The hash of a release's artifact that begins with what was typed."""
    known: set[str] = set()
    if not all_whole([typed]):
        known = {each.sha256 async for release in client.releases() for each in release.artifacts}
    return ArtifactHash.parse(resolve([typed], known, "the fleet's releases")[0])


def _lines(found: Sequence[RequestBody], width: int | None, *, long: bool) -> list[Text]:
    return table(_COLUMNS, [_row(each, long=long) for each in found], width=width)


def _row(each: RequestBody, *, long: bool) -> tuple[str | Text, ...]:
    artifact = each.artifact or "-"
    return (
        moment(each.time),
        each.sled,
        each.operation,
        "-" if each.generation is None else str(each.generation),
        artifact if long else short(artifact),
        each.source or "-",
        Text(each.error or "", style="red"),
    )
