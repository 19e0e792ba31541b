"""`depot-coordinator journal`: what happened in the fleet, and proofs of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import Column, fields, moment, plural, printable, short, table
from agent.cli.output import Output, reporting
from agent.cli.resolving import hash_or_prefix
from coordinator.cli import options
from coordinator.cli.history import whole_hash
from coordinator.cli.journal_drop import drop
from coordinator.cli.journal_files import export, known_keys, verify
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.journal.checkpoints import opened
from coordinator.journal.notes import BadNote, VerifierKey
from coordinator.journal.proofs import BadProof, verify_inclusion
from coordinator.journal.tree import leaf_hash
from coordinator.journal_wire import EntryBody, ProofBody, ShardBody

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

_index = click.argument("index", metavar="INDEX", type=click.IntRange(min=0))
_long = click.option("--long", is_flag=True, help="Show whole hashes.")


@click.group(short_help="What happened in the fleet, and proofs of it.")
@options.shared_group
def journal() -> None:
    """What happened in the fleet, and proofs of it."""


journal.add_command(drop)
journal.add_command(export)
journal.add_command(verify)


@journal.command("tail")
@click.option("--lines", "-n", type=click.IntRange(1, MAX_LISTED), default=20, show_default=True)
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
@click.option("--artifact", type=hash_or_prefix, metavar="SHA256", help="Only about this artifact.")
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
    """Show the entries that all of this is true of: a timeline over the whole fleet."""
    query: dict[str, str | int] = {"limit": 1000}
    for name, value in (("sled", sled), ("release", release), ("kind", kind)):
        query |= {} if value is None else {name: value}
    query |= {} if since is None else {"since": max(1, int(since.timestamp()))}
    with reporting(common) as output:
        asyncio.run(_search(common, output, artifact, query, long=long))


@journal.command("prove", short_help="Prove that an entry is in the journal.")
@_index
@click.option("--keys", type=click.Path(path_type=Path), help="Believe only the keys in this file.")
@options.shared
def prove(common: Common, index: int, keys: Path | None) -> None:
    """Prove that an entry is in the journal, and verify the proof here."""
    with reporting(common) as output:
        asyncio.run(_prove(common, output, index, keys))


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
        last = (await client.journal_shards())[-1]
        start = max(0, last.first_index + last.size - lines)
        found = [entry async for entry in client.journal(start)]
    _list(output, found[-lines:], long=long)


async def _show(common: Common, output: Output, index: int) -> None:
    async with coordinator(common) as client:
        entry = await client.journal_entry(index)
    content = _content(entry)
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
        if artifact is not None:
            query["artifact"] = str(await whole_hash(client, artifact))
        found = [entry async for entry in client.journal(0, **query)]
    _list(output, found, long=long)


async def _prove(common: Common, output: Output, index: int, keys: Path | None) -> None:
    async with coordinator(common) as client:
        proof = await client.journal_proof(index)
    known = await asyncio.to_thread(known_keys, keys)
    shard = proof.checkpoint.shard
    try:
        key = known.get(shard) or VerifierKey.parse(proof.checkpoint.verifier_key)
        _verify(proof, key)
    except (BadNote, BadProof) as error:
        raise Failure(f"entry {index} is not proved: {error}", ExitCode.WRONG_BYTES) from error
    if shard not in known:
        output.warning(f"the key of shard {shard} is the coordinator's own word; see --keys")
    lines = [
        f"entry {index} is in shard {shard} of {plural(proof.tree_size, 'entry')}",
        f"key {key}",
        *proof.checkpoint.note.splitlines(),
    ]
    output.document(proof.model_dump(mode="json"), lines)


def _verify(proof: ProofBody, key: VerifierKey) -> None:
    checkpoint = opened(proof.checkpoint.note, key)
    verify_inclusion(
        leaf_hash(proof.entry.content.encode()),
        proof.entry.index - proof.checkpoint.first_index,
        checkpoint.size,
        tuple(map(bytes.fromhex, proof.hashes)),
        checkpoint.root,
    )


async def _checkpoint(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal_checkpoint()
    output.document(found.model_dump(mode="json"), found.note.splitlines())


async def _shards(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal_shards()
    document = {"items": [each.model_dump(mode="json") for each in found]}
    output.document(document, table(_SHARDS, [_row(each) for each in found], width=output.width))


async def _keys(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        found = await client.journal_shards()
    document = {"items": [{"shard": each.id, "key": each.verifier_key} for each in found]}
    output.document(document, [each.verifier_key for each in found])


async def _rotate(
    common: Common, output: Output, ending: str | None, *, undo: bool, lost_key: bool
) -> None:
    async with coordinator(common) as client:
        made = await client.rotate_journal(ending, undo=undo, lost_key=lost_key)
    if not made.done:
        since = moment(made.active.created_at)
        line = f"nothing to do: shard {made.active.id} is active since {since}"
    elif undo:
        line = f"shard {made.active.id} is active again"
    else:
        sealed = "" if made.sealed is None else f", {made.sealed.id} is sealed"
        line = f"shard {made.active.id} is active{sealed}"
    output.document(made.model_dump(mode="json"), [line])


def _list(output: Output, found: list[EntryBody], *, long: bool) -> None:
    document = {"items": [each.model_dump(mode="json") for each in found]}
    output.document(document, [_line(each, long=long) for each in found] or ["no entries"])


def _line(entry: EntryBody, *, long: bool) -> Text:
    content = _content(entry)
    data = dict(content.get("data", {}))
    artifacts = [str(each) for each in content.get("artifacts", ())]
    data.pop("sha256", None) if len(artifacts) == 1 else None
    about = {
        "sled": content.get("sled"),
        "release": content.get("release"),
        "artifact": _artifacts(artifacts, long=long),
        **data,
    }
    line = Text.assemble(
        f"{entry.index:>8}  {moment(entry.time)}  ", (printable(entry.kind), "bold")
    )
    return line.append(f"  {printable(fields(about))}")


def _artifacts(artifacts: list[str], *, long: bool) -> str | None:
    match artifacts:
        case []:
            return None
        case [one]:
            return one if long else short(one)
        case _:
            return plural(len(artifacts), "artifact")


def _content(entry: EntryBody) -> Mapping[str, Any]:
    """What an entry says; nothing, when somebody has changed it into what cannot be read."""
    try:
        content = json.loads(entry.content)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


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
