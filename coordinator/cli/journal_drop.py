"""`depot-coordinator journal drop`: delete a shard that a file has, once that is verified."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import click

from agent.cli.failures import ExitCode, Failure
from agent.cli.formats import plural
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.journal_files import feed, known_keys, lines_of, shards_among
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.journal.checking import Checker

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command("drop", short_help="Delete a sealed shard that an export has.")
@click.argument("shard", metavar="SHARD")
@click.option("--export", "file", type=_FILE, required=True, help="What `journal export` wrote.")
@click.option("--keys", type=_FILE, help="Public keys, as for `verify`: believe no others.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def drop(common: Common, shard: str, file: Path, keys: Path | None, yes: bool) -> None:
    """Verify that an export has all of a sealed shard, and have the coordinator delete the shard.

    The entries keep their indices, in the file alone. Keep it: nothing else has them any more.
    """
    with reporting(common) as output:
        size, root = asyncio.run(_verified(shard, file, keys))
        if not yes:
            entries = plural(size, "entry")
            confirm(f"Delete shard {shard} with {entries}, which only {file} has then?")
        asyncio.run(_drop(common, output, shard, size, root))


async def _verified(shard: str, file: Path, keys: Path | None) -> tuple[int, str]:
    """How the shard ended, when the whole file is what it has to be."""
    checker = Checker(await asyncio.to_thread(known_keys, keys))
    found: dict[str, Mapping[str, Any]] = {}

    async def looked_at() -> AsyncIterator[list[bytes]]:
        async for lines in lines_of(file):
            found.update(shards_among(lines))
            yield lines

    await feed(checker, looked_at(), str(file))
    checked = checker.end()
    # A remark keeps nothing from being dropped: whether a shard's end is signed is known there.
    for finding in checked.findings:
        raise Failure(f"{file} does not verify: {finding.line}", ExitCode.WRONG_BYTES)
    said = found.get(shard)
    if said is None or said["dropped"] is not None or said["state"] != "sealed":
        raise Failure(
            f"{file} does not have shard {shard} from its begin to its end", ExitCode.WRONG_BYTES
        )
    return int(said["size"]), str(said["root_hash"])


async def _drop(common: Common, output: Output, shard: str, size: int, root: str) -> None:
    async with coordinator(common) as client:
        dropped = await client.journal.drop(shard, size, root)
    last = dropped.first_index + size - 1
    line = f"shard {shard} is dropped, entries {dropped.first_index} to {last} with it"
    output.document(dropped.model_dump(mode="json"), [line])
