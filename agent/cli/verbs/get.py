"""`depot get`: fetch an artifact from a depot into a file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from agent.cli import options
from agent.cli.failures import naming, usage
from agent.cli.formats import size
from agent.cli.hashing import hash_files
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.progress import Meter, display
from agent.cli.resolving import all_whole, hash_or_prefix
from agent.cli.servers import agent, depot, whole_hashes
from depot.artifact import ArtifactHash
from depot.client import Bounds, Fetched
from depot.errors import Unreachable


@click.command()
@click.option(
    "--output",
    "-o",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write, or a directory. [default: the hash, in this directory]",
)
@click.option("--force", is_flag=True, help="Replace FILE when it is there and is another.")
@click.option(
    "--max-size",
    type=options.size,
    metavar="SIZE",
    help="Take no larger artifact. [default: what the depot announces, or 2GiB when it does not]",
)
@click.option(
    "--limit-rate",
    type=options.rate,
    metavar="SIZE",
    help="Take no more in a second, such as 10MiB; at least 1KiB, and a number without a unit is"
    " bytes. [default: no limit]",
)
@click.argument("artifact", metavar="SHA256", type=hash_or_prefix)
@options.shared
def get(
    common: Common,
    artifact: str,
    target: Path | None,
    force: bool,
    max_size: int | None,
    limit_rate: int | None,
) -> None:
    """Fetch an artifact from the depot and verify it.

    FILE appears when its bytes are verified, never before. What arrives meanwhile is kept beside
    it, and a later get goes on from there. A hash cut to its first 8 characters is looked up in
    the sled's config.
    """
    with reporting(common) as output:
        if target == Path("-"):
            raise usage(
                "-o -: expected a file or a directory",
                "bytes are written out only when all of them are verified, so they cannot be piped",
            )
        sha256 = ArtifactHash.parse(asyncio.run(_whole(common, artifact)))
        path = target_path(str(sha256), target)
        # Reading a file that is here costs less than fetching it, and asks no server.
        if path.is_file() and hash_files([path], output)[0].sha256 == sha256:
            fetched, how = Fetched(path.stat().st_size, 0), "was here already"
        elif path.is_file() and not force:
            raise usage(f"{path}: is there, and is not {sha256}", "--force replaces it")
        else:
            bounds = Bounds(max_size_bytes=max_size, max_bytes_per_s=limit_rate or 0)
            fetched, how = asyncio.run(_fetch(common, output, sha256, path, bounds)), "verified"
        output.document(_document(sha256, path, fetched), [_line(path, fetched, how)])


async def _fetch(
    common: Common, output: Output, sha256: ArtifactHash, path: Path, bounds: Bounds
) -> Fetched:
    async with depot(common, bounds) as client:
        with naming(path), Meter(display(output), "fetching") as meter:
            meter.label(path.name)

            def broken(error: Unreachable) -> None:
                output.note(f"{error}; going on from {size(meter.done_bytes)}")

            return await client.fetch(sha256, path, progress=meter.set, broken=broken)


def _document(sha256: ArtifactHash, path: Path, fetched: Fetched) -> dict[str, object]:
    return {
        "sha256": str(sha256),
        "file": str(path),
        "size_bytes": fetched.size_bytes,
        "resumed_bytes": fetched.resumed_bytes,
    }


def _line(path: Path, fetched: Fetched, how: str) -> str:
    resumed = f", of which {size(fetched.resumed_bytes)} earlier" if fetched.resumed_bytes else ""
    return f"{path}: {size(fetched.size_bytes)}{resumed}, {how}"


async def _whole(common: Common, typed: str) -> str:
    if all_whole([typed]):
        return typed
    async with agent(common) as client:
        return (await whole_hashes(client, [typed]))[0]


def target_path(sha256: str, target: Path | None) -> Path:
    """The file to write: as given, or named by the hash in the directory that was given."""
    if target is None:
        return Path(sha256)
    return target / sha256 if target.is_dir() else target
