"""What the commands of `sled-agent` share that ask the running agent.

Rules kept here:

- The agent is where `--agent` says, else where `--config` says, else where the environment says, as
  for `depot`, else at the default address.
- The agent's refusals name no path of its machine, only `dataset 2`; whoever reads them here knows
  datasets by path, so that is what they are told.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import click
from rich.text import Text

from agent.cli import options
from agent.cli.failures import ExitCode, Failure, usage
from agent.cli.formats import with_paths, wrapped
from agent.cli.options import AGENT_VARIABLE, DEFAULT_AGENT_URL, Common
from agent.cli.printable import printable
from agent.cli.servers import agent
from agent.client import AgentClient
from agent.config.loading import ConfigurationError, load
from agent.config.units import Address
from depot.errors import DepotError, Refused

_HINTS: Final = {
    ExitCode.UNREACHABLE: "is it running? `systemctl status sled-agent` and its journal know; "
    f"--agent URL or {AGENT_VARIABLE} names another address"
}
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

Command = TypeVar("Command", bound=Callable[..., object])
T = TypeVar("T")
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
        help=f"The sled agent API. [env: {AGENT_VARIABLE}; default: {DEFAULT_AGENT_URL}]",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
)


def asking(command: Command) -> Command:
    """Give a command the options by which it finds the agent and answers."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def url_of(config: Path | None, agent_url: str | None) -> str:
    """Where the agent is.

    Raises:
        Failure: the configuration or the environment does not say.
    """
    if agent_url:
        return agent_url
    if config:
        return _configured_url(config)
    try:
        environ = {AGENT_VARIABLE: os.environ.get(AGENT_VARIABLE, "")}
        return options.common({}, environ).agent_url
    except click.BadParameter as error:
        raise usage(error.format_message()) from error


async def exchange(url: str, ask: Callable[[AgentClient], Awaitable[T]]) -> T:
    """Ask the agent; its refusals name datasets by path.

    Raises:
        Failure: it refused, or does not answer.
    """
    async with agent(Common(agent_url=url)) as client:
        try:
            return await ask(client)
        except Refused as error:
            raise await _by_path(client, error) from error


async def _by_path(client: AgentClient, error: Refused) -> Refused:
    """The same refusal, with paths; as it was when the agent does not tell them."""
    if "dataset " not in error.remote_message:
        return error
    try:
        paths = [dataset.path for dataset in await client.datasets()]
    except DepotError:
        return error
    return Refused(
        error.url,
        error.status,
        remote_code=error.remote_code,
        remote_message=with_paths(error.remote_message, paths),
        request_id=error.request_id,
    )


def show(failure: Failure, *, as_json: bool) -> None:
    """Say on stderr, and with --json on stdout too, why a command failed."""
    if as_json:
        click.echo(json.dumps({"error": failure.document()}, indent=2))
    _tell(f"sled-agent: {printable(failure.message)}")
    if hint := _HINTS.get(failure.exit_code, failure.hint):
        _tell(f"  {hint}")


def _tell(line: str) -> None:
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    click.echo(wrapped(Text(line), width).plain, err=True)


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
