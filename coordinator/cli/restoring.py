"""`depot-coordinator snapshot restore`: the fleet's database as a snapshot has it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import click
import structlog
from sqlalchemy import URL

from agent import logs
from agent.cli.failures import naming, usage
from agent.cli.formats import plural
from agent.cli.output import Output, reporting
from agent.cli.verbs.snapshot import progress_of, tell_line
from agent.copies.networks import AllowedNetworks
from agent.snapshots.download import Download, Telling
from agent.snapshots.errors import SnapshotError
from coordinator.cli import options
from coordinator.cli.confirming import confirm
from coordinator.cli.options import Common
from coordinator.cli.snapshots import Asked, asked_for, from_archive, open_asked, snapshot_failures
from coordinator.database.database import Database
from coordinator.database.engine import parse_url
from coordinator.errors import DatabaseInUse, RestoreFailed, SnapshotBehind
from coordinator.journal.journal import Journal
from coordinator.journal.shards import ORIGIN
from coordinator.replication.agents import Agents
from coordinator.settings import CoordinatorSettings, without_secrets
from coordinator.snapshots import restoring
from coordinator.snapshots.contents import Contents, KnownSled
from coordinator.snapshots.copying import workshop
from coordinator.staging.depot import StagingDepot
from coordinator.values import Sled
from depot.errors import DatasetBusy, DepotError

ASK_TIMEOUT_S: Final = 10.0
_MAX_ASKED: Final = 16
_MAX_DIGITS: Final = 18
_T = TypeVar("_T")


@click.command("restore", short_help="Put a snapshot in the place of the database.")
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE]")
@from_archive
@click.option(
    "--behind",
    is_flag=True,
    help="Also behind a generation that a sled has accepted.",
)
@click.option(
    "--without-copy",
    is_flag=True,
    help="Keep no copy of what is there: for a PostgreSQL database that cannot be dumped.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.shared
def restore(
    common: Common,
    file: Path | None,
    config: Path,
    archive: str | None,
    name: str | None,
    behind: bool,
    without_copy: bool,
    yes: bool,
) -> None:
    """Put a snapshot in the place of the database: FILE, or the newest one in the archive.

    No coordinator may be running on it. What the archive has is downloaded and compared with its
    checksum, the database in it is checked, and only then swapped in, in one step. What was there
    is kept beside it. Run it as the coordinator's own user.

    A snapshot of a lower generation than a sled has accepted is refused: all sleds are asked. With
    --behind it is taken; start a coordinator then, and advance the generation as it says.

    A PostgreSQL database is dumped first. One that is too damaged for that is left alone, unless
    --without-copy says that what is in it may be lost for good.

    The journal goes back as well, says how much of it is lost, and goes on in a new shard.
    """
    if not structlog.is_configured():
        # What the journal logs belongs on stderr; by itself it would be on stdout.
        logs.configure(level="warning", form="console")
    asked = asked_for(config, archive, name, needed=file is None)
    with reporting(common) as output, ExitStack() as stack, snapshot_failures():
        if without_copy and parse_url(asked.settings.database_url).get_backend_name() == "sqlite":
            raise usage("--without-copy is for PostgreSQL: a SQLite file is kept, damaged or not")
        work = stack.enter_context(workshop(asked.settings.snapshot_work))
        with naming(file) if file is not None else nullcontext():
            snapshot = _fetched(asked, file, work, output)
        told = _Told(behind=behind, copy=not without_copy, yes=yes)
        asyncio.run(_restore(asked, snapshot, work, output, told))


def _fetched(asked: Asked, file: Path | None, work: Path, output: Output) -> Path:
    """The snapshot as a file of our own, which nobody changes under us."""
    target = work / "snapshot"
    if file is not None:
        shutil.copyfile(file, target)
        return target
    # What is told of the download ends with it: a question may come next.
    with open_asked(asked) as store, ExitStack() as stack:
        tell_line(output, f"Downloading {asked.name} from {store.url}")
        telling = Telling(
            line=lambda text: tell_line(output, text),
            warning=output.warning,
            failure=lambda error, pause_s: output.note(f"{error}; trying again in {pause_s:.1f} s"),
            progress=progress_of(output, stack, "downloading"),
        )
        end = Download(store, asked.name, target, telling, require_checksum=True).run()
    if end.why is not None:
        raise end.why
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What somebody takes upon himself: as the options say."""

    behind: bool
    copy: bool
    yes: bool


async def _restore(asked: Asked, snapshot: Path, work: Path, output: Output, told: _Told) -> None:
    settings = asked.settings
    url = parse_url(settings.database_url)
    found = await asyncio.to_thread(restoring.verified, url, snapshot)
    tell_line(output, f"The snapshot is whole, and of generation {found.generation}")
    async with _staging_to_oneself(asked, output):
        await asyncio.to_thread(restoring.require_unused, url)
        present = await asyncio.to_thread(restoring.present, url)
        said = await _asked(asked, _sleds(found, present), output)
        accepted = {sled_id: each.generation for sled_id, each in said.items()}
        advance_to = _advance_to(found, accepted, behind=told.behind)
        shown = without_secrets(settings.database_url)
        if not told.yes:
            now_at = "cannot be read" if present is None else f"is at {present.generation}"
            lost_for_good = "" if told.copy else ", and lose what is there for good"
            confirm(
                f"Put generation {found.generation} in the place of {shown}, which {now_at}"
                f"{lost_for_good}?"
            )
        lost = lost_shards(found, present, [each.checkpoints for each in said.values()])
        # Somebody may have come while nobody answered.
        await asyncio.to_thread(restoring.require_unused, url)
        swapped = _swapped(settings, snapshot, work, lost, copy=told.copy)
        kept, journal = await past_interruptions(swapped)
    lines = [f"Restored: {shown} is at generation {found.generation}"]
    if kept is not None:
        lines.append(f"What was there is in {kept}")
    elif not told.copy:
        lines.append("What was there was not kept")
    lines.append(_journal_line(found, lost, journal))
    if advance_to is not None:
        lines.append(
            f"Start a coordinator, and then: depot-coordinator generation advance {advance_to}"
        )
    document = {
        "generation": found.generation,
        "kept": None if kept is None else str(kept),
        "advance_to": advance_to,
        "journal": {"shard": journal, "lost": dict(lost)},
    }
    output.document(document, lines)


@asynccontextmanager
async def _staging_to_oneself(asked: Asked, output: Output) -> AsyncIterator[None]:
    """Keep the coordinator of this machine from being started meanwhile."""
    staging = asked.settings.staging
    try:
        depot = await StagingDepot.open(staging.path, quota_bytes=staging.quota_bytes)
    except DatasetBusy as error:
        raise DatabaseInUse(f"a coordinator is running on {staging.path}") from error
    except DepotError as error:
        output.warning(f"start no coordinator meanwhile: {error}")
        yield
        return
    async with depot:
        yield


def _sleds(found: Contents, present: Contents | None) -> list[KnownSled]:
    """All that are known, as the database says that is there, or else the snapshot."""
    known = {sled.id: sled for sled in found.sleds}
    if present is not None:
        known.update({sled.id: sled for sled in present.sleds})
    return [known[sled_id] for sled_id in sorted(known)]


def _advance_to(found: Contents, accepted: dict[str, int], *, behind: bool) -> int | None:
    try:
        restoring.require_not_behind(found, accepted)
    except SnapshotBehind as error:
        if not behind:
            raise
        return error.advance_to
    return None


@dataclass(frozen=True, slots=True)
class _Said:
    """What a sled says, or what is known of it.

    Attributes:
        generation: the highest that it has accepted.
        checkpoints: of the journal, that it keeps.
    """

    generation: int
    checkpoints: Sequence[str] = ()


async def _asked(asked: Asked, sleds: Iterable[KnownSled], output: Output) -> dict[str, _Said]:
    """What each sled says."""
    slots = asyncio.Semaphore(_MAX_ASKED)

    async def ask(sled: KnownSled) -> tuple[str, _Said]:
        known = sled.generation or 0
        client = agents.within(Sled(sled.id, sled.agent_url, ""), ASK_TIMEOUT_S)
        async with slots:
            try:
                said = int((await client.config()).generation)
            except DepotError as error:
                if error.code != "NoConfig":
                    output.warning(
                        f"sled {sled.id} did not say which generation it has accepted; it was at "
                        f"{known} when it was last asked: {error}"
                    )
                    return sled.id, _Said(known)
                said = 0
            try:
                return sled.id, _Said(max(known, said), await client.checkpoints())
            except DepotError:  # an agent of an older version
                return sled.id, _Said(max(known, said))

    networks = AllowedNetworks.of(asked.settings.sleds.allowed_networks)
    async with Agents(networks) as agents:
        return dict(await asyncio.gather(*map(ask, sleds)))


def lost_shards(
    found: Contents, present: Contents | None, checkpoints: Iterable[Sequence[str]]
) -> Mapping[str, int]:
    """By shard of the journal, how many entries it had, where the snapshot has fewer."""
    known: dict[str, int] = {} if present is None else dict(present.shards)
    for note in (note for notes in checkpoints for note in notes):
        origin, _, rest = note.partition("\n")
        shard, size = origin.removeprefix(f"{ORIGIN}/"), rest.partition("\n")[0]
        if shard != origin and size.isdecimal() and len(size) < _MAX_DIGITS:
            known[shard] = max(known.get(shard, 0), int(size))
    return {
        shard: known[shard] for shard in sorted(known) if known[shard] > found.shards.get(shard, 0)
    }


async def past_interruptions(work: Coroutine[object, object, _T]) -> _T:
    """Wait for what is not to be left half done, also when it is to be stopped meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        # Stopped is only who waits here: Ctrl-C comes too late by now.
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


async def _swapped(
    settings: CoordinatorSettings,
    snapshot: Path,
    work: Path,
    lost: Mapping[str, int],
    *,
    copy: bool,
) -> tuple[Path | None, str]:
    """Swap it in, with a journal that says so; where what was is kept, and the new shard.

    Of SQLite the copy says so before it is swapped in. Of PostgreSQL no coordinator takes the
    database until it does.
    """
    url, keep_in = parse_url(settings.database_url), settings.staging.path.parent

    async def put_back() -> Path | None:
        return await asyncio.to_thread(
            restoring.put_back, url, snapshot, work=work, keep_in=keep_in, copy=copy
        )

    if url.get_backend_name() == "sqlite":
        try:
            journal = await _go_on_with_journal(url.set(database=str(snapshot)), settings, lost)
            await asyncio.to_thread(restoring.close_file, snapshot)
        except (DepotError, OSError) as error:
            raise RestoreFailed(f"nothing was changed: {error}") from error
        return await put_back(), journal
    kept = await put_back()
    try:
        journal = await _go_on_with_journal(url, settings, lost)
        await asyncio.to_thread(restoring.finish, url)
    except (DepotError, OSError, SnapshotError) as error:
        raise RestoreFailed(
            "the database is restored, but its journal does not say so yet: restore it once more; "
            "until then no coordinator takes it; what was there is in "
            f"{kept or 'no file'}: {error}"
        ) from error
    return kept, journal


async def _go_on_with_journal(
    url: URL, settings: CoordinatorSettings, lost: Mapping[str, int]
) -> str:
    """Have the journal say what is lost, and go on in a new shard; which."""
    text = url.render_as_string(hide_password=False)
    async with await Database.open(text, restoring=True) as database:
        journal = await Journal.open(database, settings.journal_keys)
        return (await journal.note_restore(lost)).active.id


def _journal_line(found: Contents, lost: Mapping[str, int], shard: str) -> str:
    entries = sum(size - found.shards.get(each, 0) for each, size in lost.items())
    return (
        f"The journal goes on in shard {shard}; {plural(entries, 'entry')} of it "
        f"{'is' if entries == 1 else 'are'} lost, as far as is known: `journal verify` says so "
        "from now on"
    )
