"""`depot copy` and `depot copies`: have the sled fetch artifacts from other depots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from agent.cli import options
from agent.cli.copying import Batch, Wanted
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import Column, age, plural, short, size, table
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.progress import Meter, display
from agent.cli.resolving import hash_or_prefix, resolve
from agent.cli.servers import agent, failure_of
from agent.wire.copies import CopyBody
from agent.wire.fields import MAX_SOURCES

WATCH_S: Final = 0.5
_HELD: Final = "- (held already, nothing fetched)"
_COLUMNS: Final = (
    Column("SHA256"),
    Column("STATE"),
    Column("SIZE", right=True),
    Column("DONE", right=True),
    Column("STARTED"),
    Column("FROM, OR WHY NOT", prose=True),
)


@click.command()
@click.option(
    "--from",
    "sources",
    type=options.url,
    multiple=True,
    required=True,
    metavar="URL",
    help="Depot to fetch from; of several, some are asked at once (copy.max_sources).",
)
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Stay until every copy has ended."
)
@click.option("--long", is_flag=True, help="Show whole hashes.")
@click.argument("artifacts", nargs=-1, required=True, metavar="SHA256...", type=hash_or_prefix)
@options.shared
def copy(
    common: Common, artifacts: tuple[str, ...], sources: tuple[str, ...], wait: bool, long: bool
) -> None:
    """Have the sled fetch artifacts from other depots.

    Any number of artifacts of its config may be named, by at least their first 8 characters.
    More than the sled copies at once wait here for their turn. With --no-wait the command ends
    when the last copy has begun. What the sled holds is verified, and not fetched again.
    """
    with reporting(common) as output:
        if len(sources) > MAX_SOURCES:
            raise usage(f"expected at most {MAX_SOURCES} --from, found {len(sources)}")
        asyncio.run(_copy(common, output, artifacts, sources, wait=wait, long=long))


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Go on showing changes, until Ctrl-C.")
@click.option("--long", is_flag=True, help="Show whole hashes.")
@options.shared
def copies(common: Common, watch: bool, long: bool) -> None:
    """Show running and recent copies.

    With --json, one document; with --json --watch, one line for each change of a copy.
    """
    with reporting(common) as output:
        run = _watch if watch else _show
        asyncio.run(run(common, output, long=long))


async def _copy(
    common: Common,
    output: Output,
    typed: Sequence[str],
    sources: Sequence[str],
    *,
    wait: bool,
    long: bool,
) -> None:
    async with agent(common) as client:
        config = await client.config()
        hashes = resolve(typed, map(str, config.artifacts), "the sled's config")
        wanted = [Wanted(sha256) for sha256 in hashes]
        batch = Batch(
            client=client,
            generation=config.generation,
            sources=sources,
            wanted=wanted,
            failure_of=lambda error: failure_of(error, "agent", common.agent_url),
        )
        with Meter(display(output), "copying" if wait else "starting copies") as meter:
            await batch.run(meter, wait=wait)
    lines = table(_COLUMNS, [_row(item, long=long) for item in wanted], width=output.width)
    output.document({"copies": [item.document() for item in wanted]}, lines)
    raise_for(wanted)


def raise_for(wanted: Sequence[Wanted]) -> None:
    """Fail the command if a copy failed or was superseded."""
    bad = [item for item in wanted if item.over and item.state != "succeeded"]
    if not bad:
        return
    first = bad[0]
    if first.failure and len(wanted) == 1:
        raise first.failure
    reason = first.failure.message if first.failure else _reason(first.copy)
    raise Failure(
        f"{len(bad)} of {len(wanted)} copies failed, first {first.sha256}: {reason}",
        ExitCode.REFUSED,
        code="CopyFailed" if not first.failure else first.failure.code,
    )


def _reason(copy: CopyBody | None) -> str:
    return (copy.error if copy else None) or "the sled gives no reason"


def _row(item: Wanted, *, long: bool) -> tuple[str | Text, ...]:
    if item.copy is not None:
        return copy_row(item.copy, time.time(), long=long)
    # Which agent refused is known here; the row has little room.
    reason = item.failure.message.rpartition(" refused: ")[2] if item.failure else ""
    why = _why(reason, item.sha256)
    return (_name(item.sha256, long=long), state(item.state), "-", "-", "-", why)


def copy_row(copy: CopyBody, now_s: float, *, long: bool) -> tuple[str | Text, ...]:
    """A copy for people: what, how far, since when, and from where or why not."""
    return (
        _name(copy.sha256, long=long),
        state(copy.state),
        _size(copy),
        _done(copy),
        age(now_s - copy.started_at.timestamp()),
        _from(copy),
    )


def _from(copy: CopyBody) -> str:
    if copy.error:
        return _why(copy.error, copy.sha256)
    return _HELD if _held(copy) else ", ".join(copy.sources)


def _held(copy: CopyBody) -> bool:
    """Whether the sled had it, and asked no source."""
    return copy.state == "succeeded" and copy.bytes_total is None and not copy.bytes_done


def _why(reason: str, sha256: str) -> str:
    """Why a copy failed, without the hash that its row begins with."""
    return reason.removeprefix(f"no source gave {sha256}: ").replace(sha256, short(sha256))


def _name(sha256: str, *, long: bool) -> str:
    return sha256 if long else short(sha256)


def _size(copy: CopyBody) -> str:
    if _held(copy):
        return "-"  # nothing was fetched, so nobody said how large it is
    return "?" if copy.bytes_total is None else size(copy.bytes_total)


def _done(copy: CopyBody) -> str:
    if _held(copy):
        return "held"
    if not copy.bytes_total:
        return "100%" if copy.state == "succeeded" else size(copy.bytes_done)
    return f"{100 * copy.bytes_done // copy.bytes_total}%"


def state(name: str) -> Text:
    """A copy's state, red when it ended badly."""
    return Text(name, style="red" if name in ("failed", "superseded") else "")


async def _show(common: Common, output: Output, *, long: bool) -> None:
    async with agent(common) as client:
        found = await client.copies()
    document = {"copies": [copy.model_dump(mode="json") for copy in found]}
    output.document(document, copy_lines(found, output.width, long=long))


def copy_lines(
    found: Sequence[CopyBody], width: int | None, *, long: bool, most: int | None = None
) -> list[Text]:
    """The table of copies; `most` keeps the newest ones only."""
    if not found:
        return [Text("no copies")]
    rows = [copy_row(copy, time.time(), long=long) for copy in found]
    return table(_COLUMNS, rows[-most:] if most else rows, width=width)


async def _watch(common: Common, output: Output, *, long: bool) -> None:
    if output.json or not output.out.is_terminal:
        await _watch_changes(common, output, long=long)
    else:
        await _watch_live(common, output, long=long)


async def _watch_changes(common: Common, output: Output, *, long: bool) -> None:
    seen: dict[str, CopyBody] = {}
    async with agent(common) as client:
        while True:
            found = await client.copies()
            for copy in found:
                if seen.get(copy.copy_id) != copy:
                    output.record(copy.model_dump(mode="json"), _change_line(copy, long=long))
            seen = {copy.copy_id: copy for copy in found}
            await asyncio.sleep(WATCH_S)


def _change_line(copy: CopyBody, *, long: bool) -> Text:
    row = copy_row(copy, copy.started_at.timestamp(), long=long)
    return Text("  ").join(
        cell if isinstance(cell, Text) else Text(cell) for cell in (*row[:4], row[5])
    )


async def _watch_live(common: Common, output: Output, *, long: bool) -> None:
    async with agent(common) as client:
        with Live(console=output.out, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                found = await client.copies()
                running = sum(copy.state == "running" for copy in found)
                head = Text(f"{plural(running, 'copy')} running of {len(found)} (Ctrl-C ends)")
                most = max(1, output.out.height - 3)
                lines = copy_lines(found, output.width, long=long, most=most)
                live.update(Group(head, *lines), refresh=True)
                await asyncio.sleep(WATCH_S)
