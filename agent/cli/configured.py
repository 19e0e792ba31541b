"""What the commands that go by a configuration share: the option, reading it, and how they end."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

import click

from agent.cli.printable import printable
from agent.config.loading import ConfigurationError, load
from agent.config.settings import Settings

FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The configuration, in TOML.",
)


def settings_of(config: Path) -> Settings:
    """Read the configuration; name every mistake in it, and end, if there is one."""
    try:
        return load(config, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(printable(problem), err=True)
        sys.exit(USAGE)


def fail(message: str, code: int, hint: str = "") -> NoReturn:
    """Say why, and what to do next, and end."""
    click.echo(f"sled-agent: {printable(message)}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    sys.exit(code)
