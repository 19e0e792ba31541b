"""`depot config`: what the sled is to hold."""

from __future__ import annotations

import asyncio

import click
from pydantic import ValidationError

from agent.cli import options
from agent.cli.changes import Change
from agent.cli.failures import Failure, refused, usage
from agent.cli.formats import plural
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.servers import agent, current_config
from agent.client import AgentClient
from agent.wire.config import ArtifactConfigBody
from agent.wire.status import StatusBody
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import ArtifactInUse, ConfigGeneration, LedgerUnknown, Refused


@click.group()
@options.shared_group
def config() -> None:
    """Show or set what the sled is to hold."""


@config.command("get")
@options.shared
def get(common: Common) -> None:
    """Show the config: its generation and every hash in it.

    What --json prints is what `depot config set` reads.
    """
    with reporting(common) as output:
        asyncio.run(_get(common, output))


@config.command("set")
@click.option(
    "--generation",
    type=options.generation,
    metavar="N",
    help="Generation of a config given as hashes.",
)
@click.option("--empty", is_flag=True, help="With --generation and no hash: hold nothing at all.")
@click.option(
    "--dry-run", is_flag=True, help="Show what would change or be refused, and change nothing."
)
@click.argument("what", nargs=-1, metavar="FILE|-|SHA256...")
@options.shared
def set_(
    common: Common, what: tuple[str, ...], generation: Generation | None, empty: bool, dry_run: bool
) -> None:
    """Set the config, and show what it changes.

    FILE (- for stdin) is the JSON that `depot --json config get` prints. With --generation, the
    arguments are the hashes themselves. A generation may only rise; the sled deletes what the
    new config drops. A sled whose ledger is behind or conflicted takes one with a higher
    generation; what that changes cannot be shown.
    """
    with reporting(common) as output:
        wanted = _parsed(what, generation, empty)
        asyncio.run(_set(common, output, wanted, dry_run=dry_run))


async def _get(common: Common, output: Output) -> None:
    async with agent(common) as client:
        body = ArtifactConfigBody.of(await client.config())
    head = f"generation {body.generation}: {plural(len(body.artifacts), 'artifact')}"
    output.document(body.model_dump(mode="json"), [head, *body.artifacts])


async def _set(common: Common, output: Output, wanted: ArtifactConfig, *, dry_run: bool) -> None:
    async with agent(common) as client:
        change = await _change_to(client, output, wanted)
        refusal = await _foreseen(client, change) if dry_run else None
        if not dry_run:
            await client.put_config(wanted)
    output.document({**change.document(), "dry_run": dry_run}, change.lines())
    if refusal:
        raise refusal
    if dry_run:
        output.note("dry run: nothing was changed")
    elif change.drops_most:
        output.note(
            "most artifacts are dropped: the sled waits storage.delete_grace before it deletes "
            "them, and a higher generation with them takes it back"
        )


async def _change_to(client: AgentClient, output: Output, wanted: ArtifactConfig) -> Change:
    """Compare with the current config; one that cannot be told is no reason to send nothing.

    A higher generation is the very thing that such a sled asks for.
    """
    try:
        return Change(await current_config(client), wanted)
    except Refused as error:
        if error.remote_code != LedgerUnknown.code:
            raise
        output.note(f"what this changes cannot be shown: {error.remote_message}")
        return Change(None, wanted, known=False)


async def _foreseen(client: AgentClient, change: Change) -> Failure | None:
    """The refusal that this change would meet, as far as it can be told from here.

    A pin may hold what the current config no longer names, after a reset.
    """
    if not change.known and (refusal := _foreseen_blind(await client.status(), change.after)):
        return refusal
    if change.before and change.after.generation < change.before.generation:
        return refused(
            ConfigGeneration.code,
            f"generation {change.after.generation} would be refused: it is older than the "
            f"current {change.before.generation}",
        )
    if change.before and change.after.generation == change.before.generation and not change.nothing:
        return refused(
            ConfigGeneration.code,
            f"generation {change.after.generation} would be refused: it was accepted before with "
            "other contents",
        )
    for name, held in sorted((await client.pins()).items()):
        if lost := sorted(held - change.after.artifacts):
            return refused(
                ArtifactInUse.code,
                f"the config would be refused: pin {name} holds {lost[0]}, which it drops",
            )
    return None


def _foreseen_blind(status: StatusBody, after: ArtifactConfig) -> Failure | None:
    if status.ledger == "unknown":
        return refused(
            LedgerUnknown.code,
            f"generation {after.generation} would be refused: an expected ledger cannot be seen",
        )
    accepted = -1 if status.generation is None else status.generation
    # The one that was accepted may be sent again where its ledgers are gone, not where they differ.
    lowest = accepted if status.ledger == "behind" else accepted + 1
    if after.generation < lowest:
        return refused(
            ConfigGeneration.code,
            f"generation {after.generation} would be refused: {accepted} was accepted before",
            hint=f"use generation {accepted + 1} or a higher one",
        )
    return None


def _parsed(what: tuple[str, ...], generation: Generation | None, empty: bool) -> ArtifactConfig:
    if generation is not None:
        return _from_hashes(what, generation, empty)
    if empty:
        raise usage(
            "--empty: expected --generation N with it", "depot config set --generation N --empty"
        )
    if len(what) != 1:
        raise usage(
            "expected one FILE (- for stdin), or --generation N and the hashes",
            "depot config set FILE, or depot config set --generation N SHA256...",
        )
    with click.open_file(what[0], "rb") as file:
        return _from_json(what[0], file.read())


def _from_hashes(what: tuple[str, ...], generation: Generation, empty: bool) -> ArtifactConfig:
    if empty and what:
        raise usage("expected either --empty or hashes, found both")
    if not empty and not what:
        raise usage(
            "expected at least one SHA256",
            "a config that holds nothing, so that the sled deletes everything, takes --empty",
        )
    return ArtifactConfig.make(generation, [ArtifactHash.parse(options.sha256(w)) for w in what])


def _from_json(name: str, text: bytes) -> ArtifactConfig:
    try:
        return ArtifactConfigBody.model_validate_json(text).config()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise usage(
            f"{name}: {where}: {first['msg'].removeprefix('Value error, ')}",
            'expected {"generation": N, "artifacts": ["<sha256>", ...]}',
        ) from error
