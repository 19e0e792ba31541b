"""`sled-agent quarantine`: the damaged copies that were set aside on this node."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click
from rich.text import Text

from agent.cli.agent_status import asking, show, url_of
from agent.cli.failures import Failure, usage
from agent.cli.formats import Column, plural, printable, short, size, table
from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.servers import agent
from agent.client import AgentClient
from agent.wire import QuarantinedBody

Ask = Callable[[AgentClient, Output], Awaitable[None]]


@click.group(short_help="List, restore or purge damaged copies that were set aside.")
def quarantine() -> None:
    """What was found damaged is set aside, not deleted: list it, restore it, let it go.

    An ID may be cut to as many characters as tell it from the others.
    """


@quarantine.command("ls")
@asking
@click.pass_context
def ls(ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """List every damaged copy, oldest first, and where its file lies."""

    async def ask(client: AgentClient, output: Output) -> None:
        found = await client.quarantined()
        document = {"quarantined": [each.model_dump(mode="json") for each in found]}
        output.document(document, lines(found, output.width))

    _asked(ctx, config, agent_url, ask, as_json=as_json)


@quarantine.command()
@click.argument("id_", metavar="ID")
@asking
@click.pass_context
def restore(
    ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool, id_: str
) -> None:
    """Give a copy its name back, if its bytes turn out to be right after all."""

    async def ask(client: AgentClient, output: Output) -> None:
        found = await _find(client, id_)
        await client.restore_quarantined(found.id)
        output.document(found.model_dump(mode="json"), [f"restored {found.sha256}"])

    _asked(ctx, config, agent_url, ask, as_json=as_json)


@quarantine.command()
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="Also the last copy of an artifact.")
@asking
@click.pass_context
def purge(
    ctx: click.Context,
    config: Path | None,
    agent_url: str | None,
    as_json: bool,
    id_: str,
    force: bool,
) -> None:
    """Delete a copy for good."""

    async def ask(client: AgentClient, output: Output) -> None:
        found = await _find(client, id_)
        await client.purge_quarantined(found.id, force=force)
        output.document(found.model_dump(mode="json"), [f"deleted {found.path}"])

    _asked(ctx, config, agent_url, ask, as_json=as_json)


async def _find(client: AgentClient, prefix: str) -> QuarantinedBody:
    quarantined = await client.quarantined()
    found = [each for each in quarantined if each.id.startswith(prefix)]
    exact = [each for each in found if each.id == prefix]
    if len(exact or found) == 1:
        return (exact or found)[0]
    hint = "`sled-agent quarantine ls` lists them"
    if not found:
        raise usage(f"nothing in quarantine has an id that begins with {prefix[:140]!r}", hint)
    raise usage(f"{len(found)} ids begin with {prefix[:140]!r}: name one whole", hint)


def _asked(
    ctx: click.Context, config: Path | None, agent_url: str | None, ask: Ask, *, as_json: bool
) -> None:
    output = Output(Common(json=as_json))
    try:
        asyncio.run(_exchange(url_of(config, agent_url), ask, output))
        output.finish()
    except Failure as failure:
        show(failure, as_json=as_json)
        ctx.exit(failure.exit_code)


async def _exchange(url: str, ask: Ask, output: Output) -> None:
    async with agent(Common(agent_url=url)) as client:
        await ask(client, output)


def lines(found: Sequence[QuarantinedBody], width: int | None) -> list[Text | str]:
    """The listing for people."""
    if not found:
        return ["nothing is in quarantine"]
    in_all = sum(each.size_bytes for each in found)
    last = sum(each.last_copy for each in found)
    headline = f"{plural(len(found), 'copy')} set aside, {size(in_all)}"
    note = "; `last` ones are kept, whatever the bound: nobody has a verified copy" if last else ""
    return [headline + note, "", *table(_COLUMNS, [_row(each) for each in found], width=width)]


_COLUMNS = (
    Column("SINCE"),
    Column("ARTIFACT"),
    Column("WHY"),
    Column("SIZE", right=True),
    Column("KEPT"),
    Column("ID"),
    Column("FILE", prose=True),
)


def _row(each: QuarantinedBody) -> tuple[str | Text, ...]:
    kept = Text("last", style="red") if each.last_copy else Text("")
    return (
        each.time.astimezone().isoformat(" ", "seconds"),
        short(each.sha256),
        printable(each.reason),
        size(each.size_bytes),
        kept,
        each.id,
        each.path,
    )
