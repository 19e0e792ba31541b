"""`depot-coordinator journal export` and `verify`: the journal as a file, and checking one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from agent.cli.failures import ExitCode, Failure, local_errors, naming, usage
from agent.cli.formats import plural
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from coordinator.cli.witnesses import Asked, Notes, kept_by_sleds
from coordinator.journal.checking import Checker
from coordinator.journal.checkpoints import require_checkpoint
from coordinator.journal.findings import Checked
from coordinator.journal.notes import BadNote, VerifierKey
from coordinator.journal.proving import Prover

MAX_SHOWN: Final = 20
_SHARD: Final = b'{"shard":'
_MAX_DIGITS: Final = 19
"""Of the size of a tree."""
# Of brackets in brackets by the thousand, too.
_MALFORMED: Final = (ValueError, KeyError, TypeError, RecursionError)

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("export", short_help="Write the journal to a file that proves itself.")
@click.argument("file", type=_FILE)
@click.option("--shard", metavar="SHARD", help="Only this one.")
@options.shared
def export(common: Common, file: Path, shard: str | None) -> None:
    """Write entries, checkpoints and public keys to a file; `verify FILE` needs nothing else."""
    with reporting(common) as output:
        asyncio.run(_export(common, output, file, shard))


@click.command("verify", short_help="Check the whole journal, or a file that `export` wrote.")
@click.argument(
    "file", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=False
)
@click.option(
    "--keys",
    type=_FILE,
    help="Public keys, one on each line, as `journal keys` lists them: believe no others.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    multiple=True,
    help="A checkpoint that was kept elsewhere; may be given several times.",
)
@click.option(
    "--sleds/--no-sleds",
    default=None,
    help="Whether to ask the sleds for what they were sent. [default: unless there is a FILE]",
)
@click.option(
    "--agent",
    "agents",
    metavar="URL",
    multiple=True,
    help="Ask the sled whose agent is there, whether the coordinator knows of it or not.",
)
@options.shared
def verify(
    common: Common,
    file: Path | None,
    keys: Path | None,
    checkpoints: tuple[Path, ...],
    sleds: bool | None,
    agents: tuple[str, ...],
) -> None:
    """Check every entry, hash and checkpoint, and name the first bad index; exit status 1 then.

    It is compared with the checkpoints that sleds keep, and a sled is named that was told something
    else. With FILE no coordinator is asked, and no sled but those of --agent: --sleds asks the
    coordinator which there are. Without --keys the keys in the file, or the coordinator's, are
    believed: whoever can change the database can change those too.
    """
    with reporting(common) as output:
        asked = Asked(agents, every=file is None if sleds is None else sleds)
        asyncio.run(_verify(common, output, file, keys, checkpoints, asked))


def known_keys(file: Path | None) -> Mapping[str, VerifierKey]:
    """The keys in a file, by shard.

    Raises:
        Failure: it cannot be read, or a line is no key.
    """
    if file is None:
        return {}
    try:
        with local_errors():
            lines = file.read_text(encoding="utf-8").split()
        keys = [VerifierKey.parse(line) for line in lines]
    except (BadNote, UnicodeDecodeError) as error:
        raise usage(f"{file}: {error}") from error
    return {key.name.rpartition("/")[2]: key for key in keys}


async def _export(common: Common, output: Output, file: Path, shard: str | None) -> None:
    part = file.with_name(f".{file.name}.part")
    count = 0
    with local_errors(), naming(file, instead_of=part):
        writer = await asyncio.to_thread(part.open, "wb")
        try:
            async with coordinator(common) as client:
                async for lines in client.journal.export(shard):
                    count += len(lines)
                    await asyncio.to_thread(writer.write, b"".join(lines))
            await asyncio.to_thread(_finish, writer.fileno(), writer.flush)
        except BaseException:
            await asyncio.to_thread(part.unlink, missing_ok=True)
            raise
        finally:
            await asyncio.to_thread(writer.close)
        await asyncio.to_thread(part.replace, file)
    output.document({"file": str(file), "records": count}, [f"{file}: {plural(count, 'record')}"])


def _finish(descriptor: int, flush: object) -> None:
    assert callable(flush)
    flush()
    os.fsync(descriptor)


async def _verify(
    common: Common,
    output: Output,
    file: Path | None,
    keys: Path | None,
    kept: tuple[Path, ...],
    asked: Asked,
) -> None:
    known = await asyncio.to_thread(known_keys, keys)
    notes = [(str(path), await _checkpoint(path)) for path in kept]
    # Before the journal is read: what they are sent meanwhile is of a longer one.
    of_sleds = await kept_by_sleds(common, output, asked)
    if file is None:
        checker = Checker(known, [*notes, *of_sleds])
        async with coordinator(common) as client:
            await feed(checker, client.journal.export(None), "the coordinator's answer")
    else:
        of_file = await _of_file(output, file, of_sleds)
        checker = Checker(known, [*notes, *of_file])
        await feed(checker, lines_of(file), str(file))
    checked = checker.end()
    if not known:
        output.warning("no key was known beforehand, so those found were believed; see --keys")
    _tell(output, checked)


async def _of_file(output: Output, file: Path, notes: Notes) -> Notes:
    """What sleds keep of that what a file has; they may have been sent more since it was made."""
    if not notes:
        return []
    shards: dict[str, Mapping[str, Any]] = {}
    async for lines in lines_of(file):
        shards |= await asyncio.to_thread(shards_among, lines)
    fitting = [(source, note) for source, note in notes if _is_of(note, shards)]
    if later := len(notes) - len(fitting):
        output.warning(
            f"{plural(later, 'checkpoint')} of sleds are of what is not in {file}, as what came "
            "after it is not: not compared"
        )
    return fitting


def _is_of(note: str, shards: Mapping[str, Mapping[str, Any]]) -> bool:
    origin, _, rest = note.partition("\n")
    size = rest.partition("\n")[0]
    shard = shards.get(origin.rpartition("/")[2])
    if shard is None or not size.isdecimal():
        return False
    # A sealed shard has no more entries than it has here, whoever says so.
    if shard["state"] == "sealed":
        return True
    return len(size) <= _MAX_DIGITS and int(size) <= int(shard["size"])


def shards_among(lines: Iterable[bytes]) -> dict[str, Mapping[str, Any]]:
    """The shards that some lines of an export are about, by id."""
    try:
        found = [json.loads(line)["shard"] for line in lines if line.startswith(_SHARD)]
        return {str(each["id"]): each for each in found}
    except _MALFORMED:
        return {}  # whoever checks all of it says what is wrong with it


async def feed(checker: Checker | Prover, parts: AsyncIterator[list[bytes]], source: str) -> None:
    """Give whoever checks it, or proves something with it, all lines of an export.

    Raises:
        Failure: it is none.
    """
    async for lines in parts:
        try:
            await asyncio.to_thread(_feed_lines, checker, lines)
        except _MALFORMED as error:
            raise Failure(f"{source} is no export: {error}", ExitCode.WRONG_BYTES) from error


def _feed_lines(checker: Checker | Prover, lines: list[bytes]) -> None:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"expected a record in JSON, found {line[:40]!r}") from error
        checker.feed(record)


async def lines_of(file: Path) -> AsyncIterator[list[bytes]]:
    """The lines of a file, many at a time; raises Failure when it cannot be read."""
    with local_errors():
        reader = await asyncio.to_thread(file.open, "rb")
        try:
            while lines := await asyncio.to_thread(reader.readlines, 1 << 20):
                yield lines
        finally:
            await asyncio.to_thread(reader.close)


async def _checkpoint(file: Path) -> str:
    """A checkpoint that was kept in a file; raises Failure when it has something else."""
    try:
        with local_errors():
            note = await asyncio.to_thread(file.read_text, encoding="utf-8")
        require_checkpoint(note)
    except (BadNote, UnicodeDecodeError) as error:
        raise usage(f"{file} is no signed checkpoint: {error}") from error
    return note


def _tell(output: Output, checked: Checked) -> None:
    summary = (
        f"{plural(checked.shards, 'shard')}, {plural(checked.entries, 'entry')}, "
        f"{plural(checked.checkpoints, 'checkpoint')} and {checked.witnessed} kept elsewhere"
    )
    document = {
        "shards": checked.shards,
        "entries": checked.entries,
        "checkpoints": checked.checkpoints,
        "kept_elsewhere": checked.witnessed,
        "first_bad": checked.first_bad,
        "findings": [{"index": each.index, "what": each.what} for each in checked.findings],
        "restores": checked.restores,
        "remarks": [{"index": each.index, "what": each.what} for each in checked.remarks],
    }
    for remark in checked.remarks:
        output.warning(remark.line)
    findings = sorted(checked.findings, key=lambda each: (each.index is None, each.index or 0))
    lines = [summary, *(each.line for each in findings[:MAX_SHOWN])]
    verified = "what is left of it verifies" if checked.restores else "all of it verifies"
    output.document(document, lines if findings else [f"{summary}: {verified}"])
    if findings:
        more = len(findings) - 1
        raise Failure(
            f"the journal does not verify: {findings[0].line}"
            + (f", and {more} more" if more else ""),
            ExitCode.WRONG_BYTES,
        )
