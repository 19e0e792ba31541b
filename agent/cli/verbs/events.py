"""`depot events`: what happened on the sled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

import click
from rich.text import Text

from agent.cli import options
from agent.cli.formats import fields, short, size, wrapped
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from agent.cli.resolving import WHOLE
from agent.cli.servers import agent
from agent.client import AgentClient
from agent.wire.events import EventBody, EventsBody

WAIT_S: Final = 20
PAUSE_S: Final = 0.5
_BAD: Final = frozenset(
    {"config_refused", "copy_failed", "copy_gone", "dataset_lost", "lost", "quarantined"}
)


@click.command()
@click.option(
    "--after", type=options.Number(min=0), default=0, metavar="N", help="Only later ones."
)
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--long", is_flag=True, help="Show whole hashes.")
@options.shared
def events(common: Common, after: int, follow: bool, long: bool) -> None:
    """Show what happened on the sled, oldest first.

    With --json, one document; with --json --follow, one event per line.
    """
    with reporting(common) as output:
        run = _follow if follow else _show
        asyncio.run(run(common, output, after, long=long))


async def _show(common: Common, output: Output, after: int, *, long: bool) -> None:
    async with agent(common) as client:
        pages = [page async for page in _pages(client, after)]
    found = [event for page in pages for event in page.events]
    last = pages[-1]
    document = {
        "epoch": last.epoch,
        "oldest": last.oldest,
        "latest": last.latest,
        "events": [event.model_dump(mode="json") for event in found],
    }
    output.document(document, [line(event, output.width, long=long) for event in found])
    gap(output, pages[0], after)


async def _pages(client: AgentClient, after: int) -> AsyncIterator[EventsBody]:
    """Every page up to the one that is not full; the server bounds each."""
    while True:
        page = await client.events(after=after)
        yield page
        if not page.events or page.events[-1].sequence >= page.latest:
            return
        after = page.events[-1].sequence


async def _follow(common: Common, output: Output, after: int, *, long: bool) -> None:
    epoch = None
    async with agent(common) as client:
        while True:
            page = await client.events(after=after, wait_s=WAIT_S)
            if epoch not in (None, page.epoch):
                output.note("the sled's event log began anew; showing it from the start")
                epoch, after = page.epoch, 0
                continue
            epoch = page.epoch
            gap(output, page, after)
            if not page.events:
                # The server waits for one, if it knows how; without this an older one is hammered.
                await asyncio.sleep(PAUSE_S)
            for event in page.events:
                output.record(event.model_dump(mode="json"), line(event, output.width, long=long))
                after = event.sequence


def gap(output: Output, page: EventsBody, after: int) -> None:
    """Say so when events were dropped before they could be shown."""
    if page.oldest > after + 1 and page.events:
        output.note(f"events {after + 1} to {page.oldest - 1} are no longer kept")


def line(event: EventBody, width: int | None, *, long: bool) -> Text:
    """`2026-11-21 02:40:11  #12  put  sha256=9953b7c2db06… copies=2`, in local time."""
    when = event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    extra = dict(_said(name, value, long=long) for name, value in _extra(event).items())
    style = "red" if event.kind in _BAD else ""
    text = Text.assemble(
        f"{when}  #{event.sequence:<6} ",
        (f"{printable(event.kind):<16}", style),
        f" {printable(fields(extra))}",
    )
    text.rstrip()
    return wrapped(text, width)


def _extra(event: EventBody) -> Mapping[str, object]:
    return event.model_extra or {}


def _said(name: str, value: object, *, long: bool) -> tuple[str, object]:
    """A field for people: hashes short, sizes with their unit."""
    if isinstance(value, str) and len(value) == WHOLE and value.isalnum() and not long:
        return name, short(value)
    if isinstance(value, int) and name.endswith("_bytes") and value >= 0:
        return name.removesuffix("_bytes"), size(value).replace(" ", "")
    return name, value
