"""`depot-coordinator release`: what the fleet is to hold."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from agent.cli.formats import Column, moment, plural, short, size, table
from agent.cli.options import Number
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.cli.uploading import MAYBE_RECORDED, Asked, place_for_zip, upload_from
from coordinator.wire import PrunedBody, ReleaseArtifactBody, ReleaseBody, ReleaseUploadedBody

SHOWN: Final = 10
"""Releases that are named in a question."""
_URL: Final = re.compile(r"https?://", re.IGNORECASE)
# The version is last and never cut: it is what the other verbs want to be told.
_COLUMNS: Final = (
    Column("STATE"),
    Column("ARTIFACTS", right=True),
    Column("SIZE", right=True),
    Column("UPLOADED"),
    Column("RELEASE"),
)
_PRUNE_COLUMNS: Final = (Column("RELEASE"), Column("RESULT", prose=True))
_ARTIFACT_COLUMNS: Final = (
    Column("SHA256"),
    Column("SIZE", right=True),
    Column("VERSION"),
    Column("KIND OR TAGS"),
    Column("NAME", name=True),
)


@click.group()
@options.shared_group
def release() -> None:
    """Signed sets of artifacts: upload, list, show, remove, prune."""


@release.command("upload", short_help="Upload a zip or directory, or have a URL fetched.")
@click.argument("source", metavar="FILE.zip|DIR|URL")
@click.option(
    "--allow-expired", is_flag=True, help="Take it though its metadata has expired; recorded."
)
@click.option(
    "--version",
    metavar="V",
    help="Of a release that does not say it itself; of others, what they must say.",
)
@options.shared
def upload(common: Common, source: str, allow_expired: bool, version: str | None) -> None:
    """Upload a release: a zip or a directory of a signed TUF repository, or its URL.

    A URL is fetched by the coordinator, from the networks in its import.allowed_sources. The same
    release again brings back what was lost of it.
    """
    with reporting(common) as output:
        asked = Asked(allow_expired=allow_expired, version=version)
        if _URL.match(source):
            asyncio.run(_import(common, output, source, asked))
        else:
            with place_for_zip(Path(source)) as place:
                asyncio.run(_upload(common, output, Path(source), asked, place))


@release.command("ls")
@options.shared
def ls(common: Common) -> None:
    """List every release."""
    with reporting(common) as output:
        asyncio.run(_ls(common, output))


@release.command("show")
@click.argument("version", metavar="VERSION")
@click.option("--long", is_flag=True, help="Show whole hashes and names.")
@options.shared
def show(common: Common, version: str, long: bool) -> None:
    """Show a release and its artifacts."""
    with reporting(common) as output:
        asyncio.run(_show(common, output, version, long=long))


@release.command("rm", short_help="Forget a release.")
@click.argument("version", metavar="VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def rm(common: Common, version: str, yes: bool) -> None:
    """Forget a release; sleds drop what no other one has and nobody has pinned."""
    with reporting(common) as output:
        if not yes:
            confirm(f"Remove release {version}? {asyncio.run(_leaves(common, version))}")
        asyncio.run(_rm(common, output, version))


@release.command("prune")
@click.option("--keep-newest", type=Number(0, 1000), metavar="N", help="Newest uploads.")
@click.option("--keep-previous-targets", type=Number(0, 1000), metavar="N", help="Earlier targets.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def prune(
    common: Common,
    keep_newest: int | None,
    keep_previous_targets: int | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Remove the releases that nobody needs.

    What stays are the target release, so many earlier ones and newest uploads (else as [prune] in
    the coordinator's configuration has it), and whatever a sled has pinned.
    """
    with reporting(common) as output:
        keep = Keep(keep_newest, keep_previous_targets)
        pruned = None
        if dry_run or not yes:
            pruned = asyncio.run(_prune(common, keep, dry_run=True))
            if not dry_run and pruned.removed:
                confirm(f"Remove {plural(len(pruned.removed), 'release')}: {_named(pruned)}?")
        if not dry_run and (pruned is None or pruned.removed):
            pruned = asyncio.run(_prune(common, keep, dry_run=False))
        assert pruned is not None
        _tell_pruned(output, pruned.model_copy(update={"dry_run": dry_run}))


@dataclass(frozen=True, slots=True)
class Keep:
    """How many releases are to stay; None: as the coordinator's configuration has it."""

    newest: int | None
    previous_targets: int | None


async def _leaves(common: Common, version: str) -> str:
    """What goes with a release, in words."""
    async with coordinator(common) as client:
        going = _distinct((await client.release(version)).artifacts)
        async for other in client.releases():
            if other.version != version:
                for each in other.artifacts:
                    going.pop(each.sha256, None)
        sleds = [each for each in await client.sleds() if each.policy == "in_service"]
    what = f"{plural(len(going), 'artifact')} ({size(sum(going.values()))})"
    return f"{what} that no other one has will leave {plural(len(sleds), 'sled')}, unless pinned."


async def _prune(common: Common, keep: Keep, *, dry_run: bool) -> PrunedBody:
    async with coordinator(common) as client:
        return await client.prune_releases(
            keep_newest=keep.newest,
            keep_previous_targets=keep.previous_targets,
            dry_run=dry_run,
        )


def _named(pruned: PrunedBody) -> str:
    more = len(pruned.removed) - SHOWN
    return ", ".join(pruned.removed[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _tell_pruned(output: Output, pruned: PrunedBody) -> None:
    done = "would be removed" if pruned.dry_run else "removed"
    rows = [(version, done) for version in pruned.removed]
    rows += [(kept.version, f"stays: {kept.why}") for kept in pruned.kept]
    lines = table(_PRUNE_COLUMNS, rows, width=output.width) if rows else ["no releases"]
    output.document(pruned.model_dump(mode="json"), lines)


async def _upload(common: Common, output: Output, path: Path, asked: Asked, place: Path) -> None:
    async with coordinator(common) as client:
        _tell(output, await upload_from(client, output, path, asked, place))


async def _import(common: Common, output: Output, url: str, asked: Asked) -> None:
    async with coordinator(common) as client:
        output.note(f"the coordinator fetches {url}")
        try:
            answer = await client.import_release(
                url, allow_expired=asked.allow_expired, version=asked.version
            )
        except asyncio.CancelledError:
            output.warning(MAYBE_RECORDED)
            raise
    _tell(output, answer)


def _tell(output: Output, answer: ReleaseUploadedBody) -> None:
    found = answer.release
    what = "was there already" if answer.status == "already_exists" else "recorded"
    expired = ", although it has expired" if found.allowed_expired else ""
    said = f"release {found.version} {what}{expired}: {_counted(found)}"
    output.document(answer.model_dump(mode="json"), [said])


async def _ls(common: Common, output: Output) -> None:
    rows, items = [], []
    async with coordinator(common) as client:
        target = await client.target_release()
        async for each in client.releases():  # one page is in memory, unless all is asked for
            rows.append(_row(each, target))
            if output.json:
                items.append(each.model_dump(mode="json"))
    lines = table(_COLUMNS, rows, width=output.width) if rows else ["no releases"]
    output.document({"items": items, "target": target}, lines)


async def _show(common: Common, output: Output, version: str, *, long: bool) -> None:
    async with coordinator(common) as client:
        found = await client.release(version)
    lines = [*_facts(found), Text(), *_artifacts(found, None if long else output.width, long=long)]
    output.document(found.model_dump(mode="json"), lines)


async def _rm(common: Common, output: Output, version: str) -> None:
    async with coordinator(common) as client:
        await client.remove_release(version)
    output.document({"version": version, "removed": True}, [f"release {version} removed"])


def _row(found: ReleaseBody, target: str | None) -> tuple[str | Text, ...]:
    state = Text(found.state, style="red" if found.state == "incomplete" else "green")
    if found.version == target:
        state = Text(f"{found.state}, target", style=state.style)
    return (
        state,
        str(len(_distinct(found.artifacts))),
        size(sum(_distinct(found.artifacts).values())),
        moment(found.time_created),
        found.version,
    )


def _facts(found: ReleaseBody) -> Iterator[Text]:
    expired = "; its metadata had expired, which was allowed" if found.allowed_expired else ""
    for name, said in (
        ("release", found.version),
        ("state", found.state),
        ("uploaded", f"{moment(found.time_created)} as {found.file_name}{expired}"),
        ("sha256", found.sha256),
        ("holds", _counted(found)),
    ):
        yield Text(f"{name:<9} {printable(said)}")


def _artifacts(found: ReleaseBody, width: int | None, *, long: bool) -> list[Text]:
    rows = [
        (
            each.sha256 if long else short(each.sha256),
            size(each.size_bytes),
            each.version,
            _qualifier(each),
            each.name,
        )
        for each in found.artifacts
    ]
    return table(_ARTIFACT_COLUMNS, rows, width=width)


def _qualifier(found: ReleaseArtifactBody) -> str:
    if found.tags is not None:
        return ",".join(f"{key}={value}" for key, value in sorted(found.tags.items()))
    return found.kind or "-"


def _distinct(artifacts: Sequence[ReleaseArtifactBody]) -> dict[str, int]:
    return {each.sha256: each.size_bytes for each in artifacts}


def _counted(found: ReleaseBody) -> str:
    sizes = _distinct(found.artifacts)
    return f"{plural(len(sizes), 'artifact')}, {size(sum(sizes.values()))}"
