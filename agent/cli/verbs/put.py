"""`depot put`: send files to the sled.

The files are hashed first, so that the config change and every refusal come before the first byte
is sent. Each file is an `Expect: 100-continue` request: what the sled holds already is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from agent.cli import options
from agent.cli.adding import (
    Undone,
    add_to_config,
    ahead_of_its_fleet,
    take_back,
    told_of_what_stays,
)
from agent.cli.changes import Change
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import Column, plural, table
from agent.cli.hashing import LocalFile, hash_files
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from agent.cli.sending import Outcome, Sender
from agent.cli.servers import agent
from agent.cli.standing import datasets_now, room, shortfall
from agent.client import AgentClient
from depot.artifact import Generation

_COLUMNS: Final = (
    Column("SHA256"),
    Column("SIZE", right=True),
    Column("RESULT"),
    Column("COPIES"),
    Column("FILE", name=True),
)
# From the worst to the least.
_WEIGHT: Final = (
    ExitCode.WRONG_BYTES,
    ExitCode.UNREACHABLE,
    ExitCode.LOCAL,
    ExitCode.USAGE,
    ExitCode.REFUSED,
)


@click.command()
@click.option(
    "--add", is_flag=True, help="First add the files to the config, as its next generation."
)
@click.option(
    "--generation",
    type=options.generation,
    metavar="N",
    help="Generation the files belong to. [default: the current one]",
)
@click.option("--long", is_flag=True, help="Show whole hashes and names.")
@options.files
@options.shared
def put(
    common: Common, files: tuple[Path, ...], add: bool, generation: Generation | None, long: bool
) -> None:
    """Send files to the sled.

    Each file is stored under its SHA-256, which has to be in the sled's config. On a sled that
    no coordinator looks after, --add puts it there: all files in one change. What the sled holds
    already is not sent again. What --add put there and the sled then refuses is taken out of the
    config again.
    """
    with reporting(common) as output:
        if add and generation is not None:
            raise usage("--add makes a generation of its own, so --generation cannot be given too")
        hashed = hash_files(files, output)
        asyncio.run(_put(common, output, hashed, add=add, generation=generation, long=long))


async def _put(
    common: Common,
    output: Output,
    files: Sequence[LocalFile],
    *,
    add: bool,
    generation: Generation | None,
    long: bool,
) -> None:
    async with agent(common) as client:
        change = await add_to_config(client, output, files) if add else None
        ahead = await ahead_of_its_fleet(client, change) if change else []
        current = change.after.generation if change else generation
        if current is None:
            current = (await client.config()).generation
        sender = Sender(client, common.agent_url, current, pinned=generation is not None)
        with told_of_what_stays(output, change):
            outcomes = await sender.send_all(files, output)
        undone = await _undone(client, change, files, outcomes)
        datasets = () if _lost(outcomes) else await datasets_now(client)
    outcomes = [outcome.explained(room(datasets)) for outcome in outcomes]
    some = any(not outcome.failure for outcome in outcomes)
    warnings = [*(shortfall(datasets) if some else ()), *undone.warnings(), *ahead]
    document = {
        "generation": int(undone.generation or sender.generation),
        "configured_datasets": len(datasets) or None,
        "files": [outcome.document() for outcome in outcomes],
        "warnings": warnings,
        **undone.document(),
    }
    output.document(document, _lines(outcomes, len(datasets), output.width, long=long))
    undone.tell(output)
    for warning in warnings:
        output.warning(warning)
    raise_for(outcomes, len(files))


async def _undone(
    client: AgentClient,
    change: Change | None,
    files: Sequence[LocalFile],
    outcomes: Sequence[Outcome],
) -> Undone:
    """Take what was added and not stored out of the config again."""
    if change is None:
        return Undone()
    stored = {outcome.file.sha256 for outcome in outcomes if not outcome.failure}
    failed = {file.sha256 for file in files} - stored
    return await take_back(client, change, failed, lost=_lost(outcomes))


def _lost(outcomes: Sequence[Outcome]) -> bool:
    return any(outcome.lost for outcome in outcomes)


def raise_for(outcomes: Sequence[Outcome], asked: int) -> None:
    """Fail the command if any file failed: with the failure itself if it is the only file.

    Wrong bytes weigh most, then a lost server, then a refusal.
    """
    failures = [outcome.failure for outcome in outcomes if outcome.failure]
    if not failures:
        return
    worst = min(failures, key=lambda failure: _WEIGHT.index(failure.exit_code))
    if asked == 1:
        raise worst
    stored = len(outcomes) - len(failures)
    raise Failure(
        f"{stored} of {plural(asked, 'file')} stored; {worst.message}",
        worst.exit_code,
        code=worst.code,
        hint=worst.hint,
        request_id=worst.request_id,
        details=worst.details,
    )


def _lines(
    outcomes: Sequence[Outcome], configured: int, width: int | None, *, long: bool
) -> list[str | Text]:
    reasons = [
        Text(printable(f"{outcome.file.path}: {outcome.failure.message}"), style="red")
        for outcome in outcomes
        if outcome.failure and len(outcomes) > 1
    ]
    rows = [outcome.row(configured, long=long) for outcome in outcomes]
    return [*table(_COLUMNS, rows, width=None if long else width), *reasons]
