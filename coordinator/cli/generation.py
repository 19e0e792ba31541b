"""`depot-coordinator generation`: the number of the fleet's wanted set."""

from __future__ import annotations

import asyncio
from typing import Final

import click

from agent.cli import options as types
from agent.cli.output import Output, reporting
from coordinator.cli import options
from coordinator.cli.options import Common
from coordinator.cli.servers import coordinator
from depot.artifact import Generation

_WARNING: Final = "every sled takes it with the next pass"


@click.group()
@options.shared_group
def generation() -> None:
    """The number of the fleet's wanted set of artifacts."""


@generation.command("show")
@options.shared
def show(common: Common) -> None:
    """Show the current generation."""
    with reporting(common) as output:
        asyncio.run(_show(common, output))


@generation.command("advance", short_help="Raise the generation, above sleds that are ahead.")
@click.argument("to", metavar="N", type=types.generation)
@options.shared
def advance(common: Common, to: Generation) -> None:
    """Raise the generation to N, above that of sleds which are ahead for good.

    The remedy when a whole rack remembers a higher generation than a database that was set up
    again; for a single sled, `sled reset` is.
    """
    with reporting(common) as output:
        asyncio.run(_advance(common, output, to))


async def _show(common: Common, output: Output) -> None:
    async with coordinator(common) as client:
        current = await client.generation()
    output.document({"generation": current}, [str(current)])


async def _advance(common: Common, output: Output, to: Generation) -> None:
    async with coordinator(common) as client:
        current = await client.advance_generation(int(to))
    output.document({"generation": current}, [f"generation {current}; {_WARNING}"])
