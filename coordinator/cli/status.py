"""`depot-coordinator status`: how far the fleet is, what is wrong first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import click
from rich.text import Text

from agent.cli.formats import Column, moment, plural, short, size, table, wrapped
from agent.cli.output import Output, reporting
from agent.cli.printable import printable
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.cli.sleds import age_of, lacks_room, state_of
from coordinator.replication_wire import ReleaseStandingBody, ReplicationBody, SledStandingBody

SHOWN: Final = 3
_SLEDS: Final = (
    Column("SLED"),
    Column("STATE"),
    Column("GENERATION", right=True),
    Column("PRESENT", right=True),
    Column("TO GO", right=True),
    Column("COPIES"),
)
_RELEASES: Final = (
    Column("STATE"),
    Column("ARTIFACTS", right=True),
    Column("EVERYWHERE", right=True),
    Column("MOVING", right=True),
    Column("TO SEND", right=True),
    Column("RELEASE"),
)
_OPERATIONS: Final = ("put_config", "list", "put", "copy")


@click.command()
@options.shared
@click.pass_context
def status(ctx: click.Context, common: Common) -> None:
    """Show how far the fleet is, what is wrong first.

    Exit status 1 when a release has lost an artifact.
    """
    with reporting(common) as output:
        found = asyncio.run(_read(common))
        document = {**found.model_dump(mode="json"), "problems": list(problems(found))}
        output.document(document, lines(found, output))
    if any(release.state == "incomplete" for release in found.releases):
        ctx.exit(1)


async def _read(common: Common) -> ReplicationBody:
    async with coordinator(common) as client:
        return await client.replication()


def problems(found: ReplicationBody) -> Iterator[str]:
    """What is wrong, in words."""
    for release in found.releases:
        if release.state == "incomplete":
            yield f"release {release.version} has lost {_lost(release)}; upload it again"
    for sled in in_service(found):
        if sled.state not in (None, "ok"):
            why = sled.last_error or "no reason known"
            yield f"sled {sled.id} is {sled.state}: {why}{_remedy(sled)}"
        if sled.no_room is not None:
            yield f"sled {sled.id} {lacks_room(sled.no_room)}"
    if found.last_pass.error:
        yield f"the last pass ended early: {found.last_pass.error}"
    yield from found.warnings


def _remedy(sled: SledStandingBody) -> str:
    if sled.state != "ahead":
        return ""
    beyond = 1 + (sled.generation or 0)
    return (
        f" (`depot-coordinator sled reset {sled.id}`, or for a whole rack "
        f"`depot-coordinator generation advance {beyond}`)"
    )


def in_service(found: ReplicationBody) -> list[SledStandingBody]:
    """The sleds that work is done with."""
    return [sled for sled in found.sleds if sled.policy == "in_service"]


def lines(found: ReplicationBody, output: Output) -> list[Text | str]:
    """The status for people."""
    return [
        *_verdict(found, output.width),
        "",
        *_facts(found),
        *_section(_release_table(found.releases, output.width) if found.releases else []),
        *_section(_sled_table(found.sleds, output.width) if found.sleds else []),
    ]


def _verdict(found: ReplicationBody, width: int | None) -> list[Text]:
    wrong = list(problems(found))
    if wrong:
        told = (wrapped(Text(f"  {printable(problem)}", style="red"), width) for problem in wrong)
        return [Text(plural(len(wrong), "problem"), style="bold red"), *told]
    if not found.sleds:
        return [Text("no sleds", style="yellow")]
    todo = sum(1 for sled in in_service(found) if sled.artifacts_present < sled.artifacts)
    if todo:
        return [Text(f"{plural(todo, 'sled')} to be filled", style="yellow")]
    return [Text("OK", style="green")]


def _facts(found: ReplicationBody) -> Iterator[Text]:
    staging = found.staging
    rows = [
        ("generation", str(found.generation)),
        ("passes", _passes(found)),
        ("staging", f"{plural(staging.artifacts, 'artifact')}{_only_here(found)}, {_use(found)}"),
        ("requests", f"{_counts(found.requests.last_run)} in the last pass"),
        ("", f"{_counts(found.requests.lifetime)} in all"),
    ]
    if found.uploads_running:
        rows.append(("uploads", f"{found.uploads_running} running"))
    if found.quiescing:
        rows.append(("quiescing", "no more uploads are taken"))
    for name, said in rows:
        yield Text(f"{name:<10}  {printable(said)}")


def _passes(found: ReplicationBody) -> str:
    last = found.last_pass
    manual = "; by hand only (`depot-coordinator activate`)" if found.activation == "manual" else ""
    if last.began is None:
        return f"none yet{manual}"
    when = "one is running" if last.running else "none is running"
    began = f"{moment(last.began)} ({age_of(last.began)})"
    return f"{last.passes}, the last began {began}, {when}{manual}"


def _only_here(found: ReplicationBody) -> str:
    only = found.staging.only_here
    return f" ({only} of them on no sled yet)" if only else ""


def _use(found: ReplicationBody) -> str:
    staging = found.staging
    use = f"{size(staging.used_bytes)} of {size(staging.quota_bytes)}"
    return use if staging.state == "healthy" else f"{use}, {staging.state}"


def _counts(counts: dict[str, int]) -> str:
    told = []
    for operation in _OPERATIONS:
        ok, error = counts.get(f"{operation}_ok", 0), counts.get(f"{operation}_error", 0)
        if ok or error:
            told.append(f"{operation} {ok}" + (f" ({error} failed)" if error else ""))
    if counts.get("deferred"):
        told.append(f"{counts['deferred']} put off")
    return ", ".join(told) or "none"


def _section(rows: Sequence[Text]) -> list[Text]:
    return [Text(), *rows] if rows else []


def _release_table(releases: Sequence[ReleaseStandingBody], width: int | None) -> list[Text]:
    rows = [
        (
            _state_of(release),
            str(release.artifacts),
            str(release.fully_replicated),
            str(release.in_flight),
            str(release.missing),
            release.version,
        )
        for release in releases
    ]
    return table(_RELEASES, rows, width=width)


def _state_of(release: ReleaseStandingBody) -> Text:
    """How a release is in one word: `complete` beside what sleds lack would say that they do not.

    On the wire it says that nothing of it is lost.
    """
    state, style = "spreading", "yellow"
    if release.state == "incomplete":
        state, style = "incomplete", "red"
    elif release.fully_replicated == release.artifacts:
        state, style = "everywhere", "green"
    return Text(f"{state}, target" if release.target else state, style=style)


def _sled_table(sleds: Sequence[SledStandingBody], width: int | None) -> list[Text]:
    return table(_SLEDS, [_sled_row(sled) for sled in sleds], width=width)


def _sled_row(sled: SledStandingBody) -> tuple[str | Text, ...]:
    if sled.policy == "expunged":
        return (sled.id, state_of(sled), "-", "-", "-", "-")
    return (
        sled.id,
        state_of(sled),
        "-" if sled.generation is None else str(sled.generation),
        f"{sled.artifacts_present}/{sled.artifacts}",
        size(sled.bytes_to_go) if sled.bytes_to_go else "-",
        ", ".join(f"{count} x{copies}" for copies, count in sorted(sled.copies.items())) or "-",
    )


def _lost(release: ReleaseStandingBody) -> str:
    if not release.lost:
        return "an artifact"
    named = [f"{lost.names[0]} ({short(lost.sha256)})" for lost in release.lost[:SHOWN]]
    return ", ".join(named) + (", …" if len(release.lost) > SHOWN else "")
