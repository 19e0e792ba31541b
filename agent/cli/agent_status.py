"""`sled-agent status`: how this node's agent is, for the person who was woken by it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

from agent.cli import options
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import printable
from agent.cli.options import DEFAULT_AGENT_URL, Common
from agent.cli.output import Output
from agent.cli.servers import agent
from agent.cli.verbs.status import lines, problems
from agent.config.loading import ConfigurationError, load
from agent.config.units import Address
from agent.wire import StatusBody

SOMETHING_WRONG: Final = 1
_HINTS: Final = {
    ExitCode.UNREACHABLE: "is it running? `systemctl status sled-agent` and its journal know; "
    "--agent URL names another address"
}
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


Command = TypeVar("Command", bound=Callable[..., object])
_OPTIONS: Final = (
    click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Take the address from agent.listen of this configuration.",
    ),
    click.option(
        "--agent",
        "agent_url",
        type=options.url,
        metavar="URL",
        help=f"The sled agent API. [default: {DEFAULT_AGENT_URL}]",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
)


def asking(command: Command) -> Command:
    """Give a command the options by which it finds the agent and answers."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command(short_help="Show how the agent is, what is wrong first.")
@asking
@click.pass_context
def status(ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """Show how the agent is, what is wrong first; exit status 1 when something is."""
    output = Output(Common(json=as_json))
    try:
        found = asyncio.run(_ask(url_of(config, agent_url)))
        wrong = list(problems(found))
        output.document(
            {**found.model_dump(mode="json"), "problems": wrong}, lines(found, output.width)
        )
        output.finish()
    except Failure as failure:
        show(failure, as_json=as_json)
        ctx.exit(failure.exit_code)
    ctx.exit(SOMETHING_WRONG if wrong else 0)


def url_of(config: Path | None, agent_url: str | None) -> str:
    """Where the agent is, by what was given on the command line.

    Raises:
        Failure: the configuration does not say.
    """
    return agent_url or (_configured_url(config) if config else DEFAULT_AGENT_URL)


def show(failure: Failure, *, as_json: bool) -> None:
    """Say on stderr, and with --json on stdout too, why a command failed."""
    if as_json:
        click.echo(json.dumps({"error": failure.document()}, indent=2))
    click.echo(f"sled-agent: {printable(failure.message)}", err=True)
    if hint := _HINTS.get(failure.exit_code, failure.hint):
        click.echo(f"  {hint}", err=True)


async def _ask(url: str) -> StatusBody:
    async with agent(Common(agent_url=url)) as client:
        return await client.status()


def _configured_url(config: Path) -> str:
    try:
        listen = load(config, os.environ).agent.listen
    except ConfigurationError as error:
        raise usage(str(error)) from error
    if listen.port == 0:
        raise usage(
            f"{config}: agent.listen lets the system choose a port",
            hint="the agent's ready line says which; name it with --agent URL",
        )
    return f"http://{Address(_EVERYWHERE.get(listen.host, listen.host), listen.port)}"
