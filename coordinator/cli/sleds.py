"""`depot-coordinator sled`: the nodes of the fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import click
from rich.text import Text

from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import Column, age, moment, plural, size, table
from agent.cli.options import Number, url
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.client import CoordinatorClient
from coordinator.replication_wire import NoRoomBody, SledStandingBody
from coordinator.wire import Policy, SledBody
from depot.artifact import MAX_GENERATION

STYLES: Final = {
    "ok": "green",
    "behind": "yellow",
    "ahead": "red",
    "refused": "red",
    "unreachable": "red",
}
_COLUMNS: Final = (
    Column("SLED"),
    Column("STATE"),
    Column("GENERATION", right=True),
    Column("SEEN"),
    Column("AGENT"),
    Column("LAST ERROR", prose=True),
)


@click.group(short_help="The nodes of the fleet.")
@options.shared_group
def sled() -> None:
    """The nodes of the fleet: add, list, show, reset, expunge, remove."""


@sled.command("add", short_help="Add a sled, or say where it is now.")
@click.argument("sled_id", metavar="ID")
@click.argument("agent_url", metavar="AGENT_URL", type=url)
@click.option("--depot-url", type=url, metavar="URL", help="Where its peers fetch from it.")
@click.option(
    "--repo-depot-port",
    type=Number(1, 65535),
    metavar="PORT",
    help="The same, when only the port differs. [default: 12348 on the agent's host]",
)
@options.shared
def add(
    common: Common,
    sled_id: str,
    agent_url: str,
    depot_url: str | None,
    repo_depot_port: int | None,
) -> None:
    """Add sled ID, whose agent listens at AGENT_URL, or say where it is now.

    A sled with `coordinator.urls` in its configuration does this by itself.
    """
    with reporting(common) as output:
        if depot_url and repo_depot_port:
            raise usage("--depot-url has a port, so --repo-depot-port cannot be given too")
        asyncio.run(_add(common, output, sled_id, agent_url, depot_url, repo_depot_port))


@sled.command("ls")
@options.shared
def ls(common: Common) -> None:
    """List every sled, and how it fared when it was last asked."""
    with reporting(common) as output:
        asyncio.run(_ls(common, output))


@sled.command("show")
@click.argument("sled_id", metavar="ID")
@options.shared
def show(common: Common, sled_id: str) -> None:
    """Show one sled: how it fared, and what it lacks."""
    with reporting(common) as output:
        asyncio.run(_show(common, output, sled_id))


@sled.command("expunge")
@click.argument("sled_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def expunge(common: Common, sled_id: str, yes: bool) -> None:
    """Stop all work with a sled; what is on its disks stays there."""
    with reporting(common) as output:
        if not yes:
            asyncio.run(_look(common, sled_id))  # before anybody is asked about one that is none
            confirm(f"Stop all work with sled {sled_id}, and count on nothing that it holds?")
        asyncio.run(_set_policy(common, output, sled_id, "expunged"))


@sled.command("restore")
@click.argument("sled_id", metavar="ID")
@options.shared
def restore(common: Common, sled_id: str) -> None:
    """Put an expunged sled in service again."""
    with reporting(common) as output:
        asyncio.run(_set_policy(common, output, sled_id, "in_service"))


@sled.command("rm")
@click.argument("sled_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def rm(common: Common, sled_id: str, yes: bool) -> None:
    """Forget a sled that was expunged.

    An agent that still registers itself under this id is in service again: stop it first, or take
    `coordinator.urls` out of its configuration.
    """
    with reporting(common) as output:
        if not yes:
            asyncio.run(_look(common, sled_id))
            confirm(f"Forget sled {sled_id}?")
        asyncio.run(_rm(common, output, sled_id))


@sled.command("reset", short_help="Make a sled that is ahead forget its generation.")
@click.argument("sled_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--generation",
    metavar="N",
    type=Number(0, MAX_GENERATION),
    help="Only while the sled is at this one. Without --yes: the one that is asked about.",
)
@click.option("--force", is_flag=True, help="Also one that is well.")
@options.shared
def reset(common: Common, sled_id: str, yes: bool, generation: int | None, force: bool) -> None:
    """Make a sled that is ahead of the fleet for good forget its generation.

    It deletes nothing, and takes the fleet's generation with the next pass. Make sure that its
    generation is not that of another fleet, which looks after it, too.
    """
    with reporting(common) as output:
        found = asyncio.run(_look(common, sled_id))
        if not force:
            _require_unwell(found)
        if not yes:
            if generation is None:
                generation = found.generation
            number = "" if generation is None else f" {generation}"
            confirm(f"Make the agent of sled {sled_id} forget its config and generation{number}?")
        asyncio.run(_reset(common, output, sled_id, generation))


async def _add(
    common: Common,
    output: Output,
    sled_id: str,
    agent_url: str,
    depot_url: str | None,
    repo_depot_port: int | None,
) -> None:
    async with coordinator(common) as client:
        found = await client.put_sled(
            sled_id, agent_url, depot_url=depot_url, repo_depot_port=repo_depot_port
        )
    if depot_url is None and repo_depot_port is None:
        output.note(
            f"its depot is taken to be at {found.depot_url}; if it is elsewhere, say so with "
            "--depot-url or --repo-depot-port"
        )
    output.note("nobody was asked there yet: `depot-coordinator sled ls` says soon how it fares")
    said = f"{found.id}: agent {found.agent_url}, depot {found.depot_url}"
    output.document(found.model_dump(mode="json"), [said])


async def _ls(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        sleds = await client.sleds()
        standing = {} if output.json else {each.id: each for each in await _standings(client)}
    document = {"items": [each.model_dump(mode="json") for each in sleds]}
    shown = [standing.get(each.id, each) for each in sleds]
    output.document(document, listing(shown, output.width) if sleds else ["no sleds"])


async def _show(common: Common, output: Output, sled_id: str) -> None:
    async with coordinator(common) as client:
        found = await client.sled(sled_id)
        standing = (each for each in await _standings(client) if each.id == sled_id)
    found = next(standing, found)
    output.document(found.model_dump(mode="json"), [*_facts(found)])


async def _set_policy(common: Common, output: Output, sled_id: str, policy: Policy) -> None:
    async with coordinator(common) as client:
        found = await client.set_sled_policy(sled_id, policy)
    said = "is in service" if policy == "in_service" else "is expunged"
    output.document(found.model_dump(mode="json"), [f"{sled_id} {said}", *found.notes])


async def _rm(common: Common, output: Output, sled_id: str) -> None:
    async with coordinator(common) as client:
        await client.remove_sled(sled_id)
    output.document({"id": sled_id, "removed": True}, [f"{sled_id} is forgotten"])


async def _standings(client: CoordinatorClient) -> Sequence[SledStandingBody]:
    """Every sled, with how far it is."""
    return (await client.replication()).sleds


async def _look(common: Common, sled_id: str) -> SledBody:
    async with coordinator(common) as client:
        return await client.sled(sled_id)


def _require_unwell(found: SledBody) -> None:
    if found.policy == "in_service" and found.state == "ok":
        raise Failure(
            f"sled {found.id} is well: it took generation {found.generation} when it was last "
            "asked, so there is nothing for it to forget",
            ExitCode.REFUSED,
            code="SledIsWell",
            hint="a reset is for a sled that is ahead, or whose ledger is conflicted or behind; "
            "--force resets it all the same",
        )


async def _reset(common: Common, output: Output, sled_id: str, generation: int | None) -> None:
    async with coordinator(common) as client:
        done = await client.reset_sled(sled_id, generation)
    said = f"{sled_id} forgot generation {done.forgotten_generation}"
    output.document(done.model_dump(mode="json"), [said])


def listing(sleds: Sequence[SledBody], width: int | None) -> list[Text]:
    """One line for each sled, below a head."""
    return table(_COLUMNS, [_row(each) for each in sleds], width=width)


def _row(found: SledBody) -> tuple[str | Text, ...]:
    generation = "-" if found.generation is None else str(found.generation)
    seen = "never" if found.last_seen is None else age_of(found.last_seen)
    return (found.id, state_of(found), generation, seen, found.agent_url, found.last_error or "")


def state_of(found: SledBody) -> Text:
    """The state of a sled in one word, coloured."""
    if found.policy == "expunged":
        return Text("expunged", style="dim")
    if found.state == "ok" and isinstance(found, SledStandingBody) and found.unwell:
        return Text(f"ok, {plural(len(found.unwell), 'dataset')} out", style="yellow")
    return Text(found.state or "not asked", style=STYLES.get(found.state or "", ""))


def age_of(time: datetime) -> str:
    """How long ago it was."""
    return age((datetime.now(UTC) - time).total_seconds())


def _facts(found: SledBody) -> Iterator[Text]:
    generation = "none confirmed" if found.generation is None else str(found.generation)
    yield Text.assemble("state       ", state_of(found))
    for name, said in (
        ("agent", found.agent_url),
        ("depot", found.depot_url),
        ("generation", generation),
        ("seen", "never" if found.last_seen is None else moment(found.last_seen)),
        ("last error", found.last_error or "none"),
        *_standing(found),
    ):
        yield Text(f"{name:<11} {printable(said)}")


def _standing(found: SledBody) -> Iterator[tuple[str, str]]:
    if not isinstance(found, SledStandingBody) or found.policy == "expunged":
        return
    to_go = f", {size(found.bytes_to_go)} to go" if found.bytes_to_go else ""
    yield "present", f"{found.artifacts_present}/{plural(found.artifacts, 'artifact')}{to_go}"
    if found.no_room is not None:
        yield "problem", lacks_room(found.no_room)
    for each in found.unwell:
        yield "problem", each


def lacks_room(found: NoRoomBody) -> str:
    """What a sled has no room for, and what to do about that: said of it."""
    return (
        f"has no room for {plural(found.artifacts, 'artifact')} ({size(found.size_bytes)}): raise "
        f"its storage.quota, or remove releases; it says: {found.reason}"
    )
