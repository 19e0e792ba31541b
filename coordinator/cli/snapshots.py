"""`depot-coordinator snapshot`: copies of the fleet's database, into an archive and out of it.

The verbs here go by the configuration and need no running coordinator: for the machine that
one runs on, and also for the day when none does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from agent.cli.configured import config_option
from agent.cli.failures import ExitCode, Failure
from agent.cli.formats import Column, moment, plural, size, table
from agent.cli.lazy import LazyGroup
from agent.cli.options import Decorated, Number
from agent.cli.output import Output, reporting
from agent.cli.verbs.snapshot import (
    failure_of,
    opened,
    progress_of,
    said_of,
    tell_line,
    warn_of_new_directory,
)
from agent.snapshots.archive import Archive
from agent.snapshots.errors import InvalidArchive, LibraryMissing, SnapshotError
from agent.snapshots.opening import KINDS
from agent.snapshots.values import Head, Listed, snapshot_name
from coordinator.cli import options
from coordinator.cli.checking import settings_of
from coordinator.cli.options import Common
from coordinator.cli.servers import HINTS
from coordinator.settings import CoordinatorSettings, SnapshotTable
from depot.errors import DepotError

_NO_ARCHIVE = "no archive is named: give --archive, or set snapshot.archive in the configuration"


def from_archive(function: Decorated) -> Decorated:
    """Whose database, and where its snapshots are; by default as the configuration says."""
    archive = click.option(
        "--archive",
        metavar="URL",
        help=f"{KINDS}. [default: snapshot.archive]",
    )
    name = click.option("--name", help="Of the snapshot. [default: snapshot.name]")
    return config_option(archive(name(function)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for: by the configuration, unless the command line says otherwise."""

    settings: CoordinatorSettings
    archive: str
    name: str

    @property
    def table(self) -> SnapshotTable:
        """What the configuration says of snapshots."""
        return self.settings.snapshot


@click.group(
    cls=LazyGroup,
    homes={
        "publish": "coordinator.cli.snapshots:publish",
        "ls": "coordinator.cli.snapshots:ls",
        # It imports what talks to sleds.
        "restore": "coordinator.cli.restoring:restore",
        "held": "coordinator.cli.held_snapshots:held",
        "drop": "coordinator.cli.held_snapshots:drop",
    },
    short_help="Copies of the database, in an archive; and snapshots that sleds hold.",
)
@options.shared_group
def snapshot() -> None:
    """Copy the fleet's database into an archive while it is in use, and see what is there.

    `held` and `drop` are about what `depot snapshot publish` gave the sleds to hold.
    """


@snapshot.command("publish", short_help="Copy the database into the archive, now.")
@from_archive
@click.option(
    "--keep",
    type=Number(min=1),
    metavar="N",
    help="Delete all versions but the newest N. [default: snapshot.keep]",
)
@options.shared
def publish(
    common: Common, config: Path, archive: str | None, name: str | None, keep: int | None
) -> None:
    """Copy the database as it is at one moment, check the copy, and publish it.

    Coordinators may be at work meanwhile. Of PostgreSQL it is a dump in the custom format, for
    which `pg_dump`, `pg_restore` and `psql` have to be installed here; what others have in that
    database is not in it. The copy is hashed when it is whole, and again while it is sent; its
    checksum is stored with it.
    """
    # They import the drivers of databases, which no other verb needs.
    from coordinator.snapshots.publishing import order_of, publish_database

    began_s = time.monotonic()
    asked = asked_for(config, archive, name)
    with reporting(common) as output, open_asked(asked) as store, ExitStack() as stack:
        tell_line(output, f"Publishing the database as {asked.name} in {store.url}")
        warn_of_new_directory(output, store)
        with snapshot_failures():
            published = publish_database(
                store,
                order_of(asked.settings, asked.name),
                directory=asked.settings.snapshot_work,
                keep=keep or asked.table.keep,
                line=lambda text: tell_line(output, text),
                progress=progress_of(output, stack, "publishing"),
            )
            if published.not_left is not None:
                said = f"published as {published.head.version}, but older versions stay"
                output.warning(said)
                raise published.not_left
        left = plural(len(published.left), "older version")
        document = {
            "name": asked.name,
            **said_of(published.head),
            "deleted": [str(version) for version in published.left],
            "durationSeconds": round(time.monotonic() - began_s, 3),
        }
        output.document(document, [f"Published; deleted {left}"])


@snapshot.command("ls", short_help="List the versions in the archive.")
@from_archive
@options.shared
def ls(common: Common, config: Path, archive: str | None, name: str | None) -> None:
    """List the versions of the snapshot in the archive, newest first."""
    asked = asked_for(config, archive, name)
    with reporting(common) as output, open_asked(asked) as store:
        with snapshot_failures():
            found = store.versions(asked.name)
            head = store.head(asked.name) if found else None
        _list(output, asked, found, head)


def _list(output: Output, asked: Asked, found: Sequence[Listed], head: Head | None) -> None:
    document = {
        "name": asked.name,
        "archive": asked.archive,
        "newest": None if head is None else said_of(head),
        "items": [
            {
                "version": str(each.version),
                "storedBytes": each.stored_bytes,
                "storedAt": each.stored_at.isoformat(),
            }
            for each in found
        ],
    }
    rows = [[str(each.version), size(each.stored_bytes), moment(each.stored_at)] for each in found]
    columns = [Column("VERSION"), Column("STORED", right=True), Column("AT")]
    output.document(document, table(columns, rows, width=output.width))
    if not found:
        output.note(f"{asked.archive} has no version of {asked.name}")


def asked_for(config: Path, archive: str | None, name: str | None, *, needed: bool = True) -> Asked:
    """What is asked for; where no archive is needed, there may be none."""
    settings = settings_of(config)
    url = archive or settings.snapshot.archive
    if url is None and needed:
        raise click.UsageError(_NO_ARCHIVE)
    try:
        return Asked(settings, url or "", snapshot_name(name or settings.snapshot.name))
    except InvalidArchive as error:
        raise click.UsageError(str(error)) from error


def open_asked(asked: Asked) -> AbstractContextManager[Archive]:
    """Open the archive for a block."""
    return opened(asked.archive, asked.table.endpoint)


@contextmanager
def snapshot_failures() -> Iterator[None]:
    """Have what can go wrong with a snapshot leave as failures of the command."""
    try:
        yield
    except LibraryMissing as error:
        raise Failure(str(error), ExitCode.LOCAL, code=error.code) from error
    except SnapshotError as error:
        raise failure_of(error) from error
    except DepotError as error:
        hint = HINTS.get(error.code, "")
        raise Failure(str(error), ExitCode.REFUSED, code=error.code, hint=hint) from error
