"""`depot put`: send files to the sled.

The files are hashed first, so that the config change and every refusal come before the first byte
is sent. Each file is an `Expect: 100-continue` request: what the sled holds already is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click
from rich.text import Text

from agent.cli import options
from agent.cli.changes import Change, adding
from agent.cli.failures import ExitCode, Failure, local, usage
from agent.cli.formats import Column, plural, printable, short, size, table
from agent.cli.hashing import LocalFile, hash_files
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.progress import Meter, display
from agent.cli.servers import agent, current_config, failure_of
from agent.client import AgentClient
from depot.artifact import ArtifactHash, Generation
from depot.errors import ArtifactGeneration, ConfigGeneration, DepotError, Refused

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one file fared."""

    file: LocalFile
    result: Literal["stored", "held", "failed"]
    datasets: int = 0
    copies: int = 0
    failure: Failure | None = None

    @property
    def lost(self) -> bool:
        """Whether the server is gone, so that there is no point in going on."""
        return self.failure is not None and self.failure.exit_code is ExitCode.UNREACHABLE

    def document(self) -> dict[str, object]:
        """The outcome for --json."""
        fared = {"datasets": self.datasets, "successful_writes": self.copies}
        return {
            "file": str(self.file.path),
            "sha256": str(self.file.sha256),
            "size_bytes": self.file.size_bytes,
            "result": self.result,
            **({"error": self.failure.document()} if self.failure else fared),
        }

    def row(self, *, long: bool) -> tuple[str | Text, ...]:
        """The outcome for people."""
        sha256 = str(self.file.sha256)
        everywhere = 0 < self.copies == self.datasets
        return (
            sha256 if long else short(sha256),
            size(self.file.size_bytes),
            Text(self.result, style="red" if self.failure else ""),
            "-" if self.failure else Text(self._copies(), style="" if everywhere else "yellow"),
            self.file.path.name,
        )

    def _copies(self) -> str:
        return f"{self.copies} of {self.datasets}"


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
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@options.shared
def put(
    common: Common, files: tuple[Path, ...], add: bool, generation: Generation | None, long: bool
) -> None:
    """Send files to the sled.

    Each file is stored under its SHA-256, which has to be in the sled's config. On a sled that
    no coordinator looks after, --add puts it there: all files in one change. What the sled holds
    already is not sent again.
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
        if add:
            current = await add_to_config(client, output, files)
        elif generation is None:
            current = (await client.config()).generation
        else:
            current = generation
        sender = Sender(client, common.agent_url, current, pinned=generation is not None)
        outcomes = await sender.send_all(files, output)
    document = {
        "generation": int(sender.generation),
        "files": [outcome.document() for outcome in outcomes],
    }
    output.document(document, _lines(outcomes, output.width, long=long))
    raise_for(outcomes, len(files))


async def add_to_config(
    client: AgentClient, output: Output, files: Sequence[LocalFile]
) -> Generation:
    """Add the files to the config in one change, once more if somebody else changed it meanwhile.

    Returns:
        The generation that has them.
    """
    artifacts = {file.sha256 for file in files}
    try:
        change = await _add(client, artifacts)
    except Refused as error:
        if error.remote_code != ConfigGeneration.code:
            raise
        output.note("the generation moved on meanwhile; trying once more")
        change = await _add(client, artifacts)
    if not change.nothing:
        output.note(_added(change))
    return change.after.generation


async def _add(client: AgentClient, artifacts: Collection[ArtifactHash]) -> Change:
    change = adding(await current_config(client), artifacts)
    if not change.nothing:
        await client.put_config(change.after)
    return change


class Sender:
    """Sends files one after the other under one generation, and follows it when it moves on.

    `pinned` says that the user named the generation: then it is not followed.
    """

    def __init__(
        self, client: AgentClient, url: str, generation: Generation, *, pinned: bool
    ) -> None:
        self._client = client
        self._url = url
        self._pinned = pinned
        self.generation = generation

    async def send_all(self, files: Sequence[LocalFile], output: Output) -> list[Outcome]:
        """Send file after file; a refused one does not stop the others, a lost server does."""
        outcomes: list[Outcome] = []
        total_bytes = sum(file.size_bytes for file in files)
        with Meter(display(output), "sending", total_bytes) as meter:
            for index, file in enumerate(files, 1):
                before = meter.done_bytes
                meter.label(f"{index}/{len(files)} {file.path.name}")
                outcome = await self._send(file, meter)
                outcomes.append(outcome)
                if outcome.lost:
                    break
                # What was not sent does not count, or the rate would be a fairy tale.
                sent_bytes = file.size_bytes if outcome.result == "stored" else 0
                total_bytes -= file.size_bytes - sent_bytes
                meter.set(before + sent_bytes, total_bytes)
        return outcomes

    async def _send(self, file: LocalFile, meter: Meter) -> Outcome:
        try:
            return await self._send_following(file, meter)
        except DepotError as error:
            return Outcome(file, "failed", failure=failure_of(error, "agent", self._url))
        except OSError as error:
            return Outcome(file, "failed", failure=local(error))

    async def _send_following(self, file: LocalFile, meter: Meter) -> Outcome:
        try:
            return await self._send_once(file, meter)
        except Refused as error:
            if self._pinned or error.remote_code != ArtifactGeneration.code:
                raise
        self.generation = (await self._client.config()).generation
        return await self._send_once(file, meter)

    async def _send_once(self, file: LocalFile, meter: Meter) -> Outcome:
        before = meter.done_bytes
        answer = await self._client.put(
            file.sha256, self.generation, file.path, on_sent=lambda sent: meter.at(before + sent)
        )
        return Outcome(
            file,
            "stored" if answer.sent else "held",
            datasets=answer.datasets,
            copies=answer.successful_writes,
        )


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


def _lines(outcomes: Sequence[Outcome], width: int | None, *, long: bool) -> list[str | Text]:
    reasons = [
        Text(printable(f"{outcome.file.path}: {outcome.failure.message}"), style="red")
        for outcome in outcomes
        if outcome.failure and len(outcomes) > 1
    ]
    rows = [outcome.row(long=long) for outcome in outcomes]
    return [*table(_COLUMNS, rows, width=None if long else width), *reasons]


def _added(change: Change) -> str:
    return (
        f"{plural(len(change.added), 'hash')} added to the config, "
        f"now generation {int(change.after.generation)}"
    )
