"""`sled-agent datasets`: let go of a disk, take it back, put an empty one in its place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.text import Text

from agent.cli.asking import asking, exchange, show, url_of
from agent.cli.failures import Failure, refused
from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.printable import printable
from agent.cli.verbs.status import dataset_table
from agent.client import AgentClient
from agent.wire.datasets import DatasetBody
from depot.errors import NotFound, Refused


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which agent is asked, and how to report."""

    config: Path | None
    agent_url: str | None
    json: bool


@click.group(short_help="Let go of a disk, take it back, or replace it.")
def datasets() -> None:
    """Let go of a dataset's disk, take it back, or replace it, while the agent runs."""


@datasets.command("list", short_help="Show every dataset, and why one is out.")
@asking
def list_(config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """Show every dataset of the sled: its state, its identity, and why it is out."""
    asked = _Asked(config, agent_url, as_json)

    async def ask(client: AgentClient) -> tuple[DatasetBody, ...]:
        return await client.datasets()

    _report(asked, ask, ())


@datasets.command(short_help="Let go of a dataset, so that it can be unmounted.")
@click.argument("path", metavar="PATH")
@click.option(
    "--last", is_flag=True, help="Also when no other dataset can be read: the sled stops serving."
)
@asking
def release(
    path: str, last: bool, config: Path | None, agent_url: str | None, as_json: bool
) -> None:
    """Let go of the dataset at PATH, so that it can be unmounted and its disk pulled.

    What runs on it goes on with the other dataset. It is left alone until `datasets attach PATH`
    or the next start of the agent.
    """
    asked, target = _Asked(config, agent_url, as_json), os.path.abspath(path)

    async def ask(client: AgentClient) -> tuple[DatasetBody, ...]:
        return await _at(client, target, client.release_dataset(target, last=last))

    _report(
        asked,
        ask,
        (
            f"released: nothing is open on it any more. Next: umount {target}",
            f"to take it back: sled-agent datasets attach {target}",
        ),
    )


@datasets.command(short_help="Take a released or retired dataset back.")
@click.argument("path", metavar="PATH")
@asking
def attach(path: str, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """Take the dataset at PATH back into use, after `release`, or after another disk replaced it.

    Its ledger is brought up to date and what it lacks is mirrored to it in the background.
    """
    asked, target = _Asked(config, agent_url, as_json), os.path.abspath(path)
    notes: list[str] = []

    async def ask(client: AgentClient) -> tuple[DatasetBody, ...]:
        before = {dataset.path: dataset.state for dataset in await client.datasets()}
        found = await _at(client, target, client.attach_dataset(target))
        notes.append(_attached(before.get(found[0].path)))
        return found

    _report(asked, ask, notes)


def _attached(before: str | None) -> str:
    if before in ("healthy", "suspect"):
        return f"was in use already ({before}): nothing was to be done"
    return "attached: what it lacks is mirrored to it in the background"


@datasets.command(short_help="Adopt an empty disk in place of a dataset.")
@click.argument("path", metavar="PATH")
@click.option(
    "--plain-directory",
    is_flag=True,
    help="PATH is meant to be a directory of a larger disk, although the other dataset is a mount.",
)
@asking
def replace(
    path: str, plain_directory: bool, config: Path | None, agent_url: str | None, as_json: bool
) -> None:
    """Adopt the empty disk mounted at PATH in place of the dataset that was there.

    Everything is mirrored to it in the background. Refused, with nothing changed: when no disk is
    mounted at PATH, when there is anything on it, when it is a dataset of this or another sled, and
    when the dataset at PATH is in use. The disk that was replaced is not taken back by itself.
    """
    asked, target = _Asked(config, agent_url, as_json), os.path.abspath(path)

    async def ask(client: AgentClient) -> tuple[DatasetBody, ...]:
        replaced = client.replace_dataset(target, plain_directory=plain_directory)
        return await _at(client, target, replaced)

    _report(
        asked,
        ask,
        ("adopted: everything is mirrored to it in the background; `sled-agent status` shows it",),
    )


def _report(
    asked: _Asked,
    ask: Callable[[AgentClient], Awaitable[tuple[DatasetBody, ...]]],
    notes: Sequence[str],
) -> None:
    output = Output(Common(json=asked.json))
    try:
        found = asyncio.run(exchange(url_of(asked.config, asked.agent_url), ask))
        document = {"datasets": [dataset.model_dump(mode="json") for dataset in found]}
        output.document(document, _lines(found, notes, output.width))
        output.finish()
    except Failure as failure:
        show(failure, as_json=asked.json)
        click.get_current_context().exit(failure.exit_code)


async def _at(
    client: AgentClient, target: str, asked: Awaitable[DatasetBody]
) -> tuple[DatasetBody, ...]:
    """Wait for what was asked of the dataset at `target`; a mistyped path is told from the others.

    Raises:
        Failure: no dataset is configured there.
    """
    try:
        return (await asked,)
    except Refused as error:
        if error.remote_code != NotFound.code:
            raise
        configured = [dataset.path for dataset in await client.datasets()]
        raise refused(
            NotFound.code,
            f"no dataset is configured at {target}; configured: {', '.join(configured) or 'none'}",
            request_id=error.request_id,
            hint="`sled-agent datasets list` shows them; a path is taken as seen from here",
        ) from error


def _lines(
    found: Sequence[DatasetBody], notes: Sequence[str], width: int | None
) -> list[Text | str]:
    identities = [
        Text(printable(f"{dataset.path}: {_identity(dataset)}"))
        for dataset in found
        if dataset.dataset_id or dataset.last_error
    ]
    return [*dataset_table(found, width), "", *identities, *notes]


def _identity(dataset: DatasetBody) -> str:
    known = f"dataset {dataset.dataset_id} on {dataset.device}" if dataset.dataset_id else ""
    reason = dataset.last_error or ""
    return "; ".join(said for said in (known, reason) if said)
