"""`depot-coordinator trust`: the roots that releases are verified with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import click

from agent.cli.failures import naming, usage
from agent.cli.formats import Column, moment, size, table
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator

MAX_ROOT_BYTES: Final = 1 << 20
_COLUMNS: Final = (
    Column("ID"),
    Column("VERSION", right=True),
    Column("ADDED"),
    Column("SIZE", right=True),
)


@click.group()
@options.shared_group
def trust() -> None:
    """The roots of trust that releases are verified with."""


@trust.command("add")
@click.argument("file", metavar="ROOT.json", type=click.Path(path_type=Path))
@options.shared
def add(common: Common, file: Path) -> None:
    """Trust releases that are signed under a TUF root.

    Whether it has expired is judged at each upload, not here.
    """
    with reporting(common) as output:
        asyncio.run(_add(common, output, _content_of(file)))


@trust.command("ls")
@options.shared
def ls(common: Common) -> None:
    """List every root of trust."""
    with reporting(common) as output:
        asyncio.run(_ls(common, output))


@trust.command("show")
@click.argument("root_id", metavar="ID")
@options.shared
def show(common: Common, root_id: str) -> None:
    """Print a root.json as it was added, byte for byte."""
    with reporting(common) as output:
        asyncio.run(_show(common, output, root_id))


@trust.command("rm")
@click.argument("root_id", metavar="ID")
@options.shared
def rm(common: Common, root_id: str) -> None:
    """Trust a root no longer; releases that are recorded stay."""
    with reporting(common) as output:
        asyncio.run(_rm(common, output, root_id))


def _content_of(file: Path) -> bytes:
    with naming(file), file.open("rb") as opened:
        content = opened.read(MAX_ROOT_BYTES + 1)
    if len(content) > MAX_ROOT_BYTES:
        raise usage(f"{file}: expected a root.json of at most 1 MiB, found more")
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        raise usage(f"{file}: expected a TUF root.json, found something that is not JSON") from None
    return content


async def _add(common: Common, output: Output, content: bytes) -> None:
    async with coordinator(common) as client:
        root_id = await client.add_trust_root(content)
    output.document({"id": root_id}, [root_id])


async def _ls(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        roots = await client.trust_roots()
    rows = [(r.id, str(r.version), moment(r.time_added), size(r.size_bytes)) for r in roots]
    lines = table(_COLUMNS, rows, width=output.width) if rows else ["no roots of trust"]
    output.document({"items": [root.model_dump(mode="json") for root in roots]}, lines)


async def _show(common: Common, output: Output, root_id: str) -> None:
    async with coordinator(common) as client:
        output.content(await client.trust_root(root_id))


async def _rm(common: Common, output: Output, root_id: str) -> None:
    async with coordinator(common) as client:
        await client.remove_trust_root(root_id)
    output.document({"id": root_id, "removed": True}, [f"{root_id} removed"])
