"""`sled-agent scrub`: the background verification of every copy on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from agent.cli.agent_status import SOMETHING_WRONG
from agent.cli.asking import asking, exchange, show, url_of
from agent.cli.failures import Failure
from agent.cli.formats import Column, moment, plural, size, span, table
from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.progress import Meter, display
from agent.client import AgentClient
from agent.config.units import parse_duration
from agent.wire.scrub import DatasetScrubBody, ScrubBody, ScrubPassBody
from depot.scrub.report import DEFAULT_PAUSE_S, MAX_PAUSE_S

POLL_S: Final = 0.5
Ask = Callable[[AgentClient, Output], Awaitable[ScrubBody]]


@click.group(short_help="Verify every copy, or see how that goes.")
def scrub() -> None:
    """Verify every copy in the background: see how it goes, start a pass, pause it."""


@scrub.command()
@asking
@click.pass_context
def status(ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """Show how the verification is; exit status 1 when copies wait to be healed."""

    async def ask(client: AgentClient, _: Output) -> ScrubBody:
        return await client.scrub()

    found = _asked(ctx, config, agent_url, ask, as_json=as_json)
    ctx.exit(SOMETHING_WRONG if any(dataset.waiting for dataset in found.datasets) else 0)


@scrub.command()
@click.option("--wait", is_flag=True, help="Return when every copy was verified.")
@asking
@click.pass_context
def start(
    ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool, wait: bool
) -> None:
    """Verify every copy from now on, as fast as is allowed; ends a pause.

    With --wait, the exit status is 1 when a copy turned out damaged or gone. A dataset that is not
    healthy is not waited for.
    """

    async def ask(client: AgentClient, output: Output) -> ScrubBody:
        started = await client.start_scrub()
        return await _finished(client, output, started) if wait else started

    found = _asked(ctx, config, agent_url, ask, as_json=as_json)
    bad = wait and any(dataset.last and dataset.last.bad for dataset in found.datasets)
    ctx.exit(SOMETHING_WRONG if bad else 0)


def _seconds(text: str) -> int:
    """Click type: a duration such as 30m, in seconds."""
    try:
        seconds = int(parse_duration(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if not 1 <= seconds <= MAX_PAUSE_S:
        raise click.BadParameter(f"expected from 1 second to {span(MAX_PAUSE_S)}, found {text!r}")
    return seconds


@scrub.command()
@click.option(
    "--for",
    "seconds",
    type=_seconds,
    default=f"{DEFAULT_PAUSE_S // 3600}h",
    show_default=True,
    metavar="TIME",
    help=f"How long, such as 30m or 2h; at most {span(MAX_PAUSE_S)}.",
)
@asking
@click.pass_context
def pause(
    ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool, seconds: int
) -> None:
    """Verify nothing for some time, also when the agent is restarted meanwhile."""

    async def ask(client: AgentClient, _: Output) -> ScrubBody:
        return await client.pause_scrub(seconds)

    _asked(ctx, config, agent_url, ask, as_json=as_json)


@scrub.command()
@asking
@click.pass_context
def resume(ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """End a pause."""

    async def ask(client: AgentClient, _: Output) -> ScrubBody:
        return await client.resume_scrub()

    _asked(ctx, config, agent_url, ask, as_json=as_json)


def _asked(
    ctx: click.Context, config: Path | None, agent_url: str | None, ask: Ask, *, as_json: bool
) -> ScrubBody:
    output = Output(Common(json=as_json))
    try:
        found = asyncio.run(exchange(url_of(config, agent_url), lambda client: ask(client, output)))
        output.document(found.model_dump(mode="json"), lines(found, output.width))
        output.finish()
    except Failure as failure:
        show(failure, as_json=as_json)
        ctx.exit(failure.exit_code)
    return found


async def _finished(client: AgentClient, output: Output, started: ScrubBody) -> ScrubBody:
    """Follow the passes that run now to their end."""
    passes = {
        dataset.dataset: dataset.current.started_at
        for dataset in started.datasets
        if dataset.current is not None
    }
    with Meter(display(output), "verifying") as meter:
        while True:
            found = await client.scrub()
            shown = [scrub for each in found.datasets if (scrub := _followed(each, passes))]
            meter.set(
                sum(scrub.bytes_done for scrub in shown), sum(scrub.bytes_total for scrub in shown)
            )
            if not any(_runs(dataset, passes) for dataset in found.datasets):
                return found
            await asyncio.sleep(POLL_S)


def _followed(dataset: DatasetScrubBody, passes: dict[str, datetime]) -> ScrubPassBody | None:
    started_at = passes.get(dataset.dataset)
    for scrub in (dataset.current, dataset.last):
        if scrub is not None and scrub.started_at == started_at:
            return scrub
    return None


def _runs(dataset: DatasetScrubBody, passes: dict[str, datetime]) -> bool:
    if dataset.state == "skipped" or dataset.current is None:
        return False
    return dataset.current.started_at == passes.get(dataset.dataset)


def lines(found: ScrubBody, width: int | None) -> list[Text | str]:
    """How the verification is, for people."""
    rows = [_row(dataset) for dataset in found.datasets]
    return [*_facts(found), "", *table(_COLUMNS, rows, width=width)]


_COLUMNS: Final = (
    Column("STATE"),
    Column("DONE", right=True),
    Column("OLDEST", right=True),
    Column("BAD SINCE START", right=True),
    Column("TO HEAL", right=True),
    Column("DATASET", prose=True),
)


def _facts(found: ScrubBody) -> Iterator[Text | str]:
    yield (
        f"every copy within {span(found.interval_s)}, "
        f"at most {size(found.max_bytes_per_s)}/s of each dataset"
    )
    if found.paused_until is not None:
        yield Text(f"paused until {moment(found.paused_until)}", style="yellow")
    for dataset in found.datasets:
        if dataset.last is not None and dataset.last.finished_at is not None:
            took_s = (dataset.last.finished_at - dataset.last.started_at).total_seconds()
            yield (
                f"{dataset.dataset}: last pass {plural(dataset.last.copies, 'copy')}, "
                f"{size(dataset.last.bytes_done)} in {max(0.0, took_s):.1f} s, "
                f"{dataset.last.bad} bad"
            )


def _row(dataset: DatasetScrubBody) -> tuple[str | Text, ...]:
    bad = Text(str(dataset.bad_found), style="red" if dataset.bad_found else "")
    oldest = dataset.oldest_unverified_s
    return (
        Text(dataset.state, style="yellow" if dataset.state == "skipped" else ""),
        _done(dataset.current),
        "-" if oldest is None else span(oldest),
        bad,
        str(dataset.waiting),
        dataset.dataset,
    )


def _done(current: ScrubPassBody | None) -> str:
    if current is None:
        return "-"
    if not current.bytes_total:
        return "0%"
    return f"{100 * current.bytes_done // current.bytes_total}%"
