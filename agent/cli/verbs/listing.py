"""`depot ls`: what the sled holds, and where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

import click
from rich.text import Text

from agent.cli import options
from agent.cli.formats import Column, age, plural, size, table
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.resolving import hash_or_prefix
from agent.cli.servers import agent, whole_hashes
from agent.client import AgentClient
from agent.wire.artifacts import ArtifactCopyDetail, ArtifactDetailBody
from agent.wire.config import ArtifactConfigBody
from depot.artifact import ArtifactHash
from depot.errors import DepotError, NotFound, Refused


@click.command("ls")
@click.argument("artifacts", nargs=-1, metavar="[SHA256...]", type=hash_or_prefix)
@options.shared
def ls(common: Common, artifacts: tuple[str, ...]) -> None:
    """List what the sled holds.

    Each artifact of the config is listed, with its number of good copies on the sled. With
    hashes (at least their first 8 characters): where each copy is, how large, and when its bytes
    were last verified.

    This is what the agent knows; it looks at no disk for it. A file that somebody removed, cut or
    changed counts until it is read, or until the agent next looks round, for names and sizes
    within storage.reconcile_interval (5 minutes). `sled-agent scrub start` on the sled has it
    read every copy now.
    """
    with reporting(common) as output:
        asyncio.run(_details(common, output, artifacts) if artifacts else _list(common, output))


async def _list(common: Common, output: Output) -> None:
    async with agent(common) as client:
        config = ArtifactConfigBody.of(await client.config())
        held = (await client.list_artifacts()).list
        copies = {sha256: held.get(sha256, 0) for sha256 in config.artifacts}
        lost = (await _lost(client)).intersection(missing(copies)) if missing(copies) else ()
    document = {
        "generation": config.generation,
        "list": dict(held),
        "missing": missing(copies),
        "lost": sorted(lost),
    }
    output.document(document, _list_lines(copies, lost))
    output.note(_summary(config.generation, copies, len(lost)))


def missing(copies: Mapping[str, int]) -> list[str]:
    """What the config names and no dataset holds."""
    return [sha256 for sha256, count in copies.items() if not count]


async def _lost(client: AgentClient) -> frozenset[str]:
    """What nobody has a good copy of; of very many, and of a sled that does not say, not all."""
    try:
        return frozenset((await client.status()).healing.lost.artifacts)
    except DepotError:
        return frozenset()


def _summary(generation: int, copies: Mapping[str, int], lost: int) -> str:
    of_them = f", {lost} of them lost" if lost else ""
    return (
        f"generation {generation}: {plural(len(copies), 'artifact')}, "
        f"{len(missing(copies))} missing{of_them}"
    )


def _list_lines(copies: Mapping[str, int], lost: Collection[str]) -> list[Text]:
    rows = [(sha256, _count(count, sha256 in lost)) for sha256, count in copies.items()]
    return table((Column("SHA256"), Column("COPIES")), rows) if rows else []


def _count(copies: int, lost: bool) -> str | Text:
    if copies:
        return str(copies)
    return Text("lost" if lost else "missing", style="red")


async def _details(common: Common, output: Output, typed: Sequence[str]) -> None:
    async with agent(common) as client:
        wanted = [ArtifactHash.parse(sha256) for sha256 in await whole_hashes(client, typed)]
        found = [await _describe(client, artifact) for artifact in wanted]
        lost = frozenset() if all(map(_present, found)) else await _lost(client)
    document = {"artifacts": [detail.model_dump(mode="json") for detail in found]}
    now_s = time.time()
    lines = [
        line
        for detail in found
        for line in _detail_lines(detail, now_s, output.width, lost=detail.sha256 in lost)
    ]
    output.document(document, lines)


async def _describe(client: AgentClient, artifact: ArtifactHash) -> ArtifactDetailBody:
    """Where an artifact is; nowhere, of one that the config names and no dataset has seen."""
    try:
        return await client.describe(artifact)
    except Refused as error:
        if error.remote_code != NotFound.code:
            raise
        if artifact not in (await client.config()).artifacts:
            raise
        return ArtifactDetailBody(sha256=str(artifact), copies=())


def _present(detail: ArtifactDetailBody) -> bool:
    return any(copy.present for copy in detail.copies)


def _detail_lines(
    detail: ArtifactDetailBody, now_s: float, width: int | None, *, lost: bool
) -> list[str | Text]:
    lines: list[str | Text] = [detail.sha256]
    if lost:
        lines.append(Text("  lost: no good copy is left", style="red"))
    elif not detail.copies:
        lines.append(Text("  missing: no dataset that is here has it", style="red"))
    if not detail.copies:
        return lines
    columns = (
        Column("  COPY"),
        Column("SIZE", right=True),
        Column("VERIFIED"),
        Column("DATASET", prose=True),
    )
    rows = [_copy_row(copy, now_s) for copy in detail.copies]
    return [*lines, *table(columns, rows, width=width)]


def _copy_row(copy: ArtifactCopyDetail, now_s: float) -> tuple[str | Text, ...]:
    verified = copy.verified_at
    return (
        _standing(copy),
        "-" if copy.size_bytes is None else size(copy.size_bytes),
        "never" if verified is None else age(now_s - verified.timestamp()),
        copy.dataset,
    )


def _standing(copy: ArtifactCopyDetail) -> Text:
    if copy.present:
        return Text("  present")
    return Text("  damaged" if copy.damaged else "  missing", style="red")
