"""`depot-coordinator check-config`, and reading a configuration for `run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from agent.cli.configured import USAGE, config_option
from agent.cli.printable import printable
from agent.config.loading import ConfigurationError
from agent.config.settings import Networks
from agent.config.units import format_size
from coordinator.settings import CoordinatorSettings, load, without_secrets


@click.command("check-config", short_help="Check a configuration and show what it comes to.")
@config_option
def check_config(config: Path) -> None:
    """Check a configuration, name every mistake in it, and show what it comes to."""
    settings = settings_of(config)
    click.echo(f"{config}: fine")
    for name, value in (
        ("listen", settings.listen),
        ("database", without_secrets(settings.database_url)),
        ("staging", f"{settings.staging.path}, {format_size(settings.staging.quota_bytes)}"),
        ("activation", _activation(settings)),
        ("sleds", f"in {_list(settings.sleds.allowed_networks)}"),
        ("imports", _list(settings.import_.allowed_sources) or "none: URLs are refused"),
    ):
        click.echo(f"  {name:<11} {printable(str(value))}")


def _list(networks: Networks) -> str:
    return ", ".join(map(str, networks))


def settings_of(config: Path) -> CoordinatorSettings:
    """Read the configuration; name every mistake in it, and end, if there is one."""
    try:
        return load(config, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(printable(problem), err=True)
        sys.exit(USAGE)


def _activation(settings: CoordinatorSettings) -> str:
    if settings.replication.activation == "manual":
        return "manual"
    return f"every {settings.replication.period_s:g} s"
