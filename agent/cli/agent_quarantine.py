"""`sled-agent quarantine`: the damaged copies that were set aside on this node."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from agent.cli.asking import asking, exchange, show, url_of
from agent.cli.failures import Failure, refused, usage
from agent.cli.formats import Column, moment, plural, short, size, table
from agent.cli.options import Common
from agent.cli.output import Output
from agent.client import AgentClient
from agent.wire.quarantine import QuarantinedBody
from depot.dataset.quarantine_names import QUARANTINE
from depot.errors import KeptInQuarantine, Refused

MIN_ID: Final = 8
_NOT_RESTORED: Final = (
    "`sled-agent quarantine ls` shows what else is there; `sled-agent quarantine purge ID` lets a "
    "copy go that is of no use any more"
)
_NOT_PURGED: Final = (
    "`sled-agent quarantine ls --json` says where its file lies: copy it from there, or put the "
    "artifact again; --force deletes it all the same"
)
Ask = Callable[[AgentClient, Output], Awaitable[None]]


def _prefix(text: str) -> str:
    """Click type: an id, or enough of one. An unset shell variable must not mean all of them."""
    if len(text.strip()) < MIN_ID:
        raise click.BadParameter(
            f"expected an id of `sled-agent quarantine ls`, or at least {MIN_ID} characters of "
            f"one, found {text[:MIN_ID]!r}"
        )
    return text.strip()


@click.group(short_help="List, restore or purge damaged copies that were set aside.")
def quarantine() -> None:
    """What was found damaged is set aside, not deleted: list it, restore it, let it go.

    An ID is what `ls` shows, or a whole one of --json, or as many characters of that, at least 8,
    as tell it from the others.
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
@click.argument("id_", metavar="ID", type=_prefix)
@asking
@click.pass_context
def restore(
    ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool, id_: str
) -> None:
    """Give a copy its name back, if its bytes turn out to be right after all."""

    async def ask(client: AgentClient, output: Output) -> None:
        found = await _find(client, id_)
        await _hinted(client.restore_quarantined(found.id), _NOT_RESTORED)
        output.document(found.model_dump(mode="json"), [f"restored {found.sha256}"])

    _asked(ctx, config, agent_url, ask, as_json=as_json)


@quarantine.command()
@click.argument("id_", metavar="ID", type=_prefix)
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
        await _hinted(client.purge_quarantined(found.id, force=force), _NOT_PURGED)
        output.document(found.model_dump(mode="json"), [f"deleted {found.path}"])

    _asked(ctx, config, agent_url, ask, as_json=as_json)


async def _hinted(asked: Awaitable[None], hint: str) -> None:
    """Wait for an answer; a refusal to let a copy go or come gets the hint of that verb."""
    try:
        await asked
    except Refused as error:
        if error.remote_code != KeptInQuarantine.code:
            raise
        raise refused(
            error.remote_code,
            f"it stays in quarantine: {error.remote_message}",
            request_id=error.request_id,
            hint=hint,
        ) from error


async def _find(client: AgentClient, prefix: str) -> QuarantinedBody:
    quarantined = await client.quarantined()
    exact = [each for each in quarantined if each.id == prefix]
    found = exact or [
        each for each in quarantined if each.id.startswith(prefix) or short_id(each) == prefix
    ]
    if len(found) == 1:
        return found[0]
    hint = "`sled-agent quarantine ls` lists them"
    if not found:
        raise usage(f"nothing in quarantine has an id that begins with {prefix[:140]!r}", hint)
    raise usage(f"{len(found)} ids begin with {prefix[:140]!r}: name one as it is listed", hint)


def short_id(found: QuarantinedBody) -> str:
    """A name for people. The id itself is long, and alike for the copies of one artifact."""
    return hashlib.sha256(found.id.encode()).hexdigest()[:MIN_ID]


def _asked(
    ctx: click.Context, config: Path | None, agent_url: str | None, ask: Ask, *, as_json: bool
) -> None:
    output = Output(Common(json=as_json))
    try:
        asyncio.run(exchange(url_of(config, agent_url), lambda client: ask(client, output)))
        output.finish()
    except Failure as failure:
        show(failure, as_json=as_json)
        ctx.exit(failure.exit_code)


def lines(found: Sequence[QuarantinedBody], width: int | None) -> list[Text | str]:
    """The listing for people."""
    if not found:
        return ["nothing is in quarantine"]
    in_all = sum(each.size_bytes for each in found)
    headline = f"{plural(len(found), 'copy')} set aside, {size(in_all)}"
    told: list[Text | str] = [headline]
    if any(each.last_copy for each in found):
        told.append("`last` ones are kept, whatever the bound: nobody has a verified copy")
    for dataset in sorted({each.dataset for each in found}):
        rows = [_row(each) for each in found if each.dataset == dataset]
        told += ["", f"on {dataset}", *table(_COLUMNS, rows, width=width)]
    return [
        *told,
        "",
        f"the files lie in {QUARANTINE} there; --json has whole names and ids",
    ]


_COLUMNS = (
    Column("SINCE"),
    Column("ID"),
    Column("ARTIFACT"),
    Column("WHY"),
    Column("KEPT"),
    Column("SIZE", right=True),
)


def _row(each: QuarantinedBody) -> tuple[str | Text, ...]:
    kept = Text("last", style="red") if each.last_copy else Text("")
    return (
        moment(each.time),
        short_id(each),
        short(each.sha256),
        each.reason,
        kept,
        size(each.size_bytes),
    )
