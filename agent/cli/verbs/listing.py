"""`depot ls`: what the sled holds, and where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import click
from rich.text import Text

from agent.cli import options
from agent.cli.formats import Column, age, plural, size, table
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.resolving import all_whole, hash_or_prefix, resolve
from agent.cli.servers import agent
from agent.wire import ArtifactConfigBody, ArtifactCopyDetail, ArtifactDetailBody
from depot.artifact import ArtifactHash


@click.command("ls")
@click.argument("artifacts", nargs=-1, metavar="[SHA256...]", type=hash_or_prefix)
@options.shared
def ls(common: Common, artifacts: tuple[str, ...]) -> None:
    """List what the sled holds.

    Each artifact of the config is listed, with its number of good copies on the sled. With
    hashes (at least their first 8 characters): where each copy is, how large, and when its bytes
    were last verified.
    """
    with reporting(common) as output:
        asyncio.run(_details(common, output, artifacts) if artifacts else _list(common, output))


async def _list(common: Common, output: Output) -> None:
    async with agent(common) as client:
        config = ArtifactConfigBody.of(await client.config())
        held = (await client.list_artifacts()).list
    copies = {sha256: held.get(sha256, 0) for sha256 in config.artifacts}
    document = {"generation": config.generation, "list": dict(held), "missing": missing(copies)}
    output.document(document, _list_lines(copies))
    output.note(
        f"generation {config.generation}: {plural(len(copies), 'artifact')}, "
        f"{len(missing(copies))} missing"
    )


def missing(copies: Mapping[str, int]) -> list[str]:
    """What the config names and no dataset holds."""
    return [sha256 for sha256, count in copies.items() if not count]


def _list_lines(copies: Mapping[str, int]) -> list[Text]:
    rows = [(sha256, _count(count)) for sha256, count in copies.items()]
    return table((Column("SHA256"), Column("COPIES")), rows) if rows else []


def _count(copies: int) -> str | Text:
    return str(copies) if copies else Text("missing", style="red")


async def _details(common: Common, output: Output, typed: Sequence[str]) -> None:
    async with agent(common) as client:
        known = () if all_whole(typed) else (await client.list_artifacts()).list
        wanted = resolve(typed, known, "the sled")
        found = [await client.describe(ArtifactHash.parse(sha256)) for sha256 in wanted]
    document = {"artifacts": [detail.model_dump(mode="json") for detail in found]}
    now_s = time.time()
    lines = [line for detail in found for line in _detail_lines(detail, now_s, output.width)]
    output.document(document, lines)


def _detail_lines(detail: ArtifactDetailBody, now_s: float, width: int | None) -> list[str | Text]:
    columns = (
        Column("  COPY"),
        Column("SIZE", right=True),
        Column("VERIFIED"),
        Column("DATASET", prose=True),
    )
    rows = [_copy_row(copy, now_s) for copy in detail.copies]
    return [detail.sha256, *table(columns, rows, width=width)]


def _copy_row(copy: ArtifactCopyDetail, now_s: float) -> tuple[str | Text, ...]:
    verified = copy.verified_at
    return (
        Text("  present") if copy.present else Text("  missing", style="red"),
        "-" if copy.size_bytes is None else size(copy.size_bytes),
        "never" if verified is None else age(now_s - verified.timestamp()),
        copy.dataset,
    )
