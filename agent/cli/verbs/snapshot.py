"""`depot snapshot`: files that every node starts from, into an archive and out of it.

Rules kept here:
- What is done is told line by line on stdout, and the last line is one JSON document, however it
  ends: for the log of a boot, and for who gathers figures from it. With --json there is only that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import click

from agent.cli import options
from agent.cli.failures import ExitCode, Failure, naming, usage
from agent.cli.formats import plural
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.progress import Lines, Meter, Silence
from agent.snapshots import publish as publishing
from agent.snapshots.archive import Archive
from agent.snapshots.course import NOT_INTACT, End, Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.errors import (
    InvalidArchive,
    LibraryMissing,
    Refused,
    SnapshotError,
    Unreachable,
)
from agent.snapshots.files import FileArchive
from agent.snapshots.opening import KINDS, open_archive
from agent.snapshots.patience import Patience
from agent.snapshots.retention import keep_newest
from agent.snapshots.values import ZSTD, Head, snapshot_name

_NOTHING_CHANGED: Final = "nothing was changed: the file is what it was, or is still not there"
_CREDENTIALS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile, say who asks"


def archive_options(function: options.Decorated) -> options.Decorated:
    """Where snapshots are."""
    endpoint = click.option(
        "--endpoint",
        type=options.url,
        metavar="URL",
        help="The server that speaks S3. [env: AWS_ENDPOINT_URL; default: Amazon's]",
    )
    archive = click.option(
        "--archive",
        "archive_url",
        required=True,
        metavar="URL",
        help=f"{KINDS}.",
    )
    return archive(endpoint(function))


def name_type(text: str) -> str:
    """Click type: the name of a snapshot."""
    try:
        return snapshot_name(text)
    except InvalidArchive as error:
        raise click.BadParameter(str(error)) from None


@click.group()
@options.shared_group
def snapshot() -> None:
    """Publish files that every node starts from, and download them whole or not at all."""


@snapshot.command("download")
@click.argument("name", metavar="NAME", type=name_type)
@archive_options
@click.option(
    "--output",
    "-o",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write or replace.",
)
@click.option(
    "--require-checksum",
    is_flag=True,
    help="Refuse a snapshot that was published without a checksum. [default: warn]",
)
@click.option(
    "--attempts",
    type=options.Number(1, 100),
    metavar="N",
    default=Patience().attempts,
    show_default=True,
    help="How often in a row the archive may fail to answer before it is given up.",
)
@options.shared
def download(
    common: Common,
    name: str,
    archive_url: str,
    endpoint: str | None,
    target: Path,
    require_checksum: bool,
    attempts: int,
) -> None:
    """Download the newest version of a snapshot into FILE, for a node that is about to start.

    FILE is replaced only by exactly the bytes that were published, in one step and durably; until
    then, and whatever fails, it is what it was. When it is these bytes already, as the checksum
    in the archive tells, nothing is downloaded. Every step is told on stdout, the last line is
    JSON.

    Status 0: FILE is the snapshot. 1: the archive does not have it, or not intact. 3: the archive
    refused. 4: it was not reached.
    """
    began = time.time(), time.monotonic()
    with reporting(common) as output, ExitStack() as stack:
        archive = stack.enter_context(opened(archive_url, endpoint))
        tell_line(output, f"Downloading {name} from {archive.url} to {target}")
        this = Download(
            archive,
            name,
            target,
            _telling(output, stack),
            require_checksum=require_checksum,
            patience=Patience(attempts=attempts),
        )
        end: End | None = None
        try:
            with naming(target):
                end = this.run()
            if end.why is None:
                tell_line(output, f"{target}: ready")
        finally:
            # Also when a disk is full, or somebody pressed Ctrl-C.
            document = _document(name, began, this.head, end)
            output.document(document, [json.dumps(document)])
        if end.why is not None:
            raise _failure(end, archive)


@snapshot.command("publish")
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@archive_options
@click.option("--name", required=True, type=name_type, help="What it is downloaded by.")
@click.option("--raw", is_flag=True, help="Take a database as it is, unchecked.")
@click.option("--zstd", "compressed", is_flag=True, help="Store it compressed.")
@click.option(
    "--keep",
    type=options.Number(min=1),
    metavar="N",
    help="Then delete all versions but the newest N. [default: delete none]",
)
@options.shared
def publish(
    common: Common,
    file: Path,
    archive_url: str,
    endpoint: str | None,
    name: str,
    raw: bool,
    compressed: bool,
    keep: int | None,
) -> None:
    """Publish FILE as the newest version of a snapshot, with its checksum.

    A SQLite database has to be closed and to pass its integrity check. The file is hashed before
    and while it is sent; if it changed in between, nothing is published. Every step is told on
    stdout, the last line is JSON.

    Status 0: published. 1: the file is damaged, in use, or changed. 3: the archive refused. 4: it
    was not reached.
    """
    began = time.time(), time.monotonic()
    with reporting(common) as output, ExitStack() as stack:
        archive = stack.enter_context(opened(archive_url, endpoint))
        tell_line(output, f"Publishing {file} as {name} in {archive.url}")
        warn_of_new_directory(output, archive)
        head: Head | None = None
        try:
            head = publishing.publish(
                archive,
                publishing.Publication(path=file, name=name, raw=raw, compressed=compressed),
                line=lambda text: tell_line(output, text),
                progress=progress_of(output, stack, "publishing"),
            )
            if keep is not None:
                left = keep_newest(archive, name, keep)
                tell_line(output, f"Deleted {plural(len(left), 'older version')}")
        except SnapshotError as error:
            raise failure_of(error) from error
        finally:
            document = {
                "startTime": int(began[0]),
                "published": _truth(head is not None),
                "compressed": _truth(compressed),
                "name": name,
                "durationSeconds": round(time.monotonic() - began[1], 3),
                **said_of(head),
            }
            output.document(document, [json.dumps(document)])


def warn_of_new_directory(output: Output, archive: Archive) -> None:
    """Tell that publishing makes the archive's directory: it may be misspelt, or not mounted."""
    if isinstance(archive, FileArchive) and archive.missing is not None:
        output.warning(f"{archive.missing} was not there, and is made")


@contextmanager
def opened(url: str, endpoint: str | None) -> Iterator[Archive]:
    """Open an archive for the block.

    Raises:
        Failure: there can be none at that URL.
    """
    try:
        archive = open_archive(url, endpoint)
    except InvalidArchive as error:
        raise usage(str(error)) from error
    except LibraryMissing as error:
        raise Failure(str(error), ExitCode.LOCAL, code=error.code) from error
    try:
        yield archive
    finally:
        archive.close()


def failure_of(error: SnapshotError) -> Failure:
    """What an error means for the command."""
    match error:
        case Unreachable():
            hint = "check the archive, and the way there"
            return Failure(str(error), ExitCode.UNREACHABLE, code=error.code, hint=hint)
        case Refused():
            # What a bucket refused begins with its URL.
            hint = _CREDENTIALS if str(error).startswith("s3://") else ""
            return Failure(str(error), ExitCode.REFUSED, code=error.code, hint=hint)
        case _:
            return Failure(str(error), ExitCode.WRONG_BYTES, code=error.code, hint="")


def _failure(end: End, archive: Archive) -> Failure:
    assert end.why is not None
    failure = failure_of(end.why)
    if end.result in (Result.NOT_INTACT, Result.NOT_THERE):
        return Failure(
            f"{NOT_INTACT}: {end.why}", failure.exit_code, code=failure.code, hint=_NOTHING_CHANGED
        )
    return failure


def _telling(output: Output, stack: ExitStack) -> Telling:
    def failure(error: Unreachable, pause_s: float) -> None:
        output.note(f"{error}; trying again in {pause_s:.1f} s")

    return Telling(
        line=lambda text: tell_line(output, text),
        warning=output.warning,
        failure=failure,
        progress=progress_of(output, stack, "downloading"),
    )


def progress_of(output: Output, stack: ExitStack, title: str) -> Callable[[int], None]:
    """Tell now and then how far it is, from the first byte on; the block's end ends it."""
    meter: list[Meter] = []

    def progress(done_bytes: int) -> None:
        if not meter:
            # No bar: the log of a boot is no terminal.
            shown = Silence() if output.quiet else Lines(output.note)
            meter.append(stack.enter_context(Meter(shown, title)))
        meter[0].at(done_bytes)

    return progress


def tell_line(output: Output, text: str) -> None:
    """Say what was done, where that is not a document."""
    if not output.json and not output.quiet:
        output.record({}, text)


def _document(
    name: str, began: tuple[float, float], head: Head | None, end: End | None
) -> dict[str, object]:
    started_s, began_s = began
    document: dict[str, object] = {
        "startTime": int(started_s),
        "downloaded": _truth(end is not None and end.result is Result.DOWNLOADED),
        "compressed": _truth(head is not None and head.metadata.compression == ZSTD),
        "name": name,
        "result": "failed" if end is None else end.result.value,
        "durationSeconds": round(time.monotonic() - began_s, 3),
    }
    return {**document, **said_of(head)}


def said_of(head: Head | None) -> dict[str, object]:
    """What a document says of a version."""
    if head is None:
        return {}
    checksum = head.metadata.checksum
    return {
        "version": str(head.version),
        "storedBytes": head.stored_bytes,
        "checksum": None if checksum is None else str(checksum),
    }


def _truth(value: bool) -> str:
    return "true" if value else "false"
