"""`depot-coordinator journal`: what happened in the fleet, and proofs of it."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Final

import click
from rich.text import Text

from agent.cli.failures import usage
from agent.cli.formats import Column, moment, table
from agent.cli.options import Number
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from agent.cli.resolving import hash_or_prefix
from coordinator.cli import options
from coordinator.cli.journal_drop import drop
from coordinator.cli.journal_files import export, verify
from coordinator.cli.journal_lines import content_of, listed
from coordinator.cli.journal_prove import prove
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.journal_wire import EntryBody, ShardBody

MAX_LISTED: Final = 100_000
_SHARDS: Final = (
    Column("SHARD"),
    Column("STATE"),
    Column("FIRST", right=True),
    Column("ENTRIES", right=True),
    Column("CREATED"),
    Column("SEALED"),
)
_DATES: Final = ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")

_index = click.argument("index", metavar="INDEX", type=Number(min=0))
_long = click.option("--long", is_flag=True, help="Show whole hashes.")


@click.group(short_help="What happened in the fleet, and proofs of it.")
@options.shared_group
def journal() -> None:
    """What happened in the fleet, and proofs of it."""


journal.add_command(drop)
journal.add_command(export)
journal.add_command(prove)
journal.add_command(verify)


@journal.command("tail")
@click.option(
    "--lines",
    "-n",
    type=Number(1, MAX_LISTED),
    default=20,
    show_default=True,
    metavar="N",
    help="At most so many.",
)
@_long
@options.shared
def tail(common: Common, lines: int, long: bool) -> None:
    """Show the last entries, the newest last."""
    with reporting(common) as output:
        asyncio.run(_tail(common, output, lines, long=long))


@journal.command("show")
@_index
@options.shared
def show(common: Common, index: int) -> None:
    """Show one entry, with all that it says."""
    with reporting(common) as output:
        asyncio.run(_show(common, output, index))


@journal.command("search", short_help="Show the entries about an artifact, a sled or a release.")
@click.option(
    "--artifact",
    type=hash_or_prefix,
    metavar="SHA256",
    help="Only about this artifact; its first 8 characters do.",
)
@click.option("--sled", metavar="ID", help="Only about this sled.")
@click.option("--release", metavar="VERSION", help="Only about this release.")
@click.option("--kind", metavar="KIND", help="Only of kinds that begin so: `sled.`, `fleet.`")
@click.option("--since", type=click.DateTime(_DATES), help="Not before; time of this machine.")
@_long
@options.shared
def search(
    common: Common,
    artifact: str | None,
    sled: str | None,
    release: str | None,
    kind: str | None,
    since: datetime | None,
    long: bool,
) -> None:
    """Show the entries that all of this is true of: a timeline over the whole fleet.

    The order is by time, which is each sled's own of what it did. INDEX is their order in the
    journal; `show INDEX` has all that is left out.
    """
    query: dict[str, str | int] = {"limit": 1000}
    for name, value in (
        ("artifact", artifact),
        ("sled", sled),
        ("release", release),
        ("kind", kind),
    ):
        query |= {} if value is None else {name: value}
    query |= {} if since is None else {"since": max(1, int(since.timestamp()))}
    with reporting(common) as output:
        asyncio.run(_search(common, output, artifact, query, long=long))


@journal.command("checkpoint", short_help="Show how the active shard is now, signed.")
@options.shared
def checkpoint(common: Common) -> None:
    """Show how the active shard is now, signed: to be kept where nobody changes it."""
    with reporting(common) as output:
        asyncio.run(_checkpoint(common, output))


@journal.command("shards")
@options.shared
def shards(common: Common) -> None:
    """List every shard, the oldest first."""
    with reporting(common) as output:
        asyncio.run(_shards(common, output))


@journal.command("keys", short_help="List the public key of every shard.")
@options.shared
def keys(common: Common) -> None:
    """List the public key of every shard, for a file that `verify --keys` takes."""
    with reporting(common) as output:
        asyncio.run(_keys(common, output))


@journal.command("rotate", short_help="Seal the active shard, and go on with a new one.")
@click.option("--ending", metavar="SHARD", help="Only if this one is active.")
@click.option("--undo", is_flag=True, help="Go on with the old one, while the new one is empty.")
@click.option(
    "--lost-key", is_flag=True, help="Its key is lost for good: seal it without a signature."
)
@options.shared
def rotate(common: Common, ending: str | None, undo: bool, lost_key: bool) -> None:
    """Seal the active shard, and go on with a new one and its new key; nobody notices."""
    if undo and (ending or lost_key):
        raise usage("--undo is about the newest shard: give neither --ending nor --lost-key")
    with reporting(common) as output:
        asyncio.run(_rotate(common, output, ending, undo=undo, lost_key=lost_key))


async def _tail(common: Common, output: Output, lines: int, *, long: bool) -> None:
    async with coordinator(common) as client:
        last = (await client.journal.shards())[-1]
        start = max(0, last.first_index + last.size - lines)
        found = [entry async for entry in client.journal.entries(start)]
    _list(output, found[-lines:], long=long)


async def _show(common: Common, output: Output, index: int) -> None:
    async with coordinator(common) as client:
        entry = await client.journal.entry(index)
    content = content_of(entry)
    lines = [
        f"{entry.index}  {moment(entry.time)}  {printable(entry.kind)}",
        f"  id    {entry.id}",
        f"  leaf  {entry.leaf_hash or 'missing'}",
        f"  shard {entry.shard}, position {entry.position}",
        *(f"  {line}" for line in json.dumps(content, indent=2).splitlines()),
    ]
    output.document(entry.model_dump(mode="json"), lines)


async def _search(
    common: Common,
    output: Output,
    artifact: str | None,
    query: dict[str, str | int],
    *,
    long: bool,
) -> None:
    async with coordinator(common) as client:
        found = [entry async for entry in client.journal.entries(0, **query)]
        kept_no_more = [
            f"{each.first_index} to {each.first_index + each.size - 1}"
            for each in await client.journal.shards()
            if each.dropped_at
        ]
    # What sleds did is numbered when they were asked: a timeline is by when it happened.
    found.sort(key=lambda entry: (entry.time, entry.index))
    if kept_no_more:
        output.warning(f"not looked at: entries {', '.join(kept_no_more)}, which exports have")
    _list(output, found, long=long, about=artifact)


async def _checkpoint(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal.checkpoint()
    output.document(found.model_dump(mode="json"), found.note.splitlines())


async def _shards(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal.shards()
    document = {"items": [each.model_dump(mode="json") for each in found]}
    output.document(document, table(_SHARDS, [_row(each) for each in found], width=output.width))


async def _keys(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal.shards()
    document = {"items": [{"shard": each.id, "key": each.verifier_key} for each in found]}
    output.document(document, [each.verifier_key for each in found])


def _list(output: Output, found: list[EntryBody], *, long: bool, about: str | None = None) -> None:
    document = {"items": [each.model_dump(mode="json") for each in found]}
    lines = listed(found, width=output.width, long=long, about=about)
    output.document(document, lines or ["no entries"])


async def _rotate(
    common: Common, output: Output, ending: str | None, *, undo: bool, lost_key: bool
) -> None:
    async with coordinator(common) as client:
        made = await client.journal.rotate(ending, undo=undo, lost_key=lost_key)
    if not made.done:
        since = moment(made.active.created_at)
        line = f"nothing to do: shard {made.active.id} is active since {since}"
    elif undo:
        line = f"shard {made.active.id} is active again"
    else:
        sealed = "" if made.sealed is None else f", {made.sealed.id} is sealed"
        line = f"shard {made.active.id} is active{sealed}"
    output.document(made.model_dump(mode="json"), [line])


def _row(shard: ShardBody) -> tuple[str | Text, ...]:
    state = "dropped" if shard.dropped_at else shard.state
    return (
        shard.id,
        Text(state, style="green" if state == "active" else ""),
        str(shard.first_index),
        str(shard.size),
        moment(shard.created_at),
        "-" if shard.sealed_at is None else moment(shard.sealed_at),
    )
