"""`depot pin`: what consumers on the sled hold, so that no config may drop it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import click

from agent.cli import options
from agent.cli.formats import plural
from agent.cli.options import Common
from agent.cli.output import Output, reporting
from agent.cli.resolving import hash_or_prefix
from agent.cli.servers import agent, whole_hashes
from depot.artifact import ArtifactHash

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def pin_name(text: str) -> str:
    """Click type: a name that can stand in a path."""
    if not _NAME.fullmatch(text):
        raise click.BadParameter(
            "expected up to 128 letters, digits, dots, dashes and underscores, "
            f"the first a letter or digit, found {text[:140]!r}"
        )
    return text


@click.group()
@options.shared_group
def pin() -> None:
    """Hold artifacts for a consumer on the sled.

    A config that would drop a pinned artifact is refused.
    """


@pin.command("ls")
@options.shared
def ls(common: Common) -> None:
    """List every pin with the hashes it holds."""
    with reporting(common) as output:
        asyncio.run(_ls(common, output))


@pin.command("set")
@click.argument("name", type=pin_name)
@click.argument("artifacts", nargs=-1, required=True, metavar="SHA256...", type=hash_or_prefix)
@options.shared
def set_(common: Common, name: str, artifacts: tuple[str, ...]) -> None:
    """Let pin NAME hold exactly these artifacts, all of the current config.

    It replaces what NAME held before. Hashes may be cut to their first 8 characters.
    """
    with reporting(common) as output:
        asyncio.run(_set(common, output, name, artifacts))


@pin.command("rm")
@click.argument("name", type=pin_name)
@options.shared
def rm(common: Common, name: str) -> None:
    """Remove pin NAME: its artifacts may be dropped again."""
    with reporting(common) as output:
        asyncio.run(_rm(common, output, name))


async def _ls(common: Common, output: Output) -> None:
    async with agent(common) as client:
        pins = await client.pins()
    held = {name: [str(sha256) for sha256 in sorted(pins[name])] for name in sorted(pins)}
    lines = [
        line
        for name, artifacts in held.items()
        for line in (f"{name}: {plural(len(artifacts), 'artifact')}", *_indented(artifacts))
    ]
    output.document({"pins": held}, lines or ["no pins"])


async def _set(common: Common, output: Output, name: str, typed: Sequence[str]) -> None:
    async with agent(common) as client:
        artifacts = await whole_hashes(client, typed)
        await client.put_pin(name, [ArtifactHash.parse(sha256) for sha256 in artifacts])
    said = f"{name} holds {plural(len(artifacts), 'artifact')}"
    output.document({"pin": name, "artifacts": artifacts}, [said, *_indented(artifacts)])


async def _rm(common: Common, output: Output, name: str) -> None:
    async with agent(common) as client:
        await client.delete_pin(name)
    output.document({"pin": name, "removed": True}, [f"{name} removed"])


def _indented(artifacts: Sequence[str]) -> list[str]:
    return [f"  {sha256}" for sha256 in artifacts]
