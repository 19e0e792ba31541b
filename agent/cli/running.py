"""`sled-agent run`: the daemon. Nobody else imports this: it imports half of the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

import agent.lean_structlog  # noqa: F401  before whoever else imports structlog
from agent import daemon, logs
from agent.cli.configured import FAILED, config_option, fail, settings_of
from agent.daemon import Ready
from agent.process import CannotStart


@click.command(short_help="Run the agent until SIGTERM or SIGINT.")
@config_option
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write agent_url, depot_url and pid as JSON here, once both servers listen.",
)
def run(config: Path, ready_file: Path | None) -> None:
    """Run the agent until SIGTERM or SIGINT; a second one ends it at once.

    Datasets that were never initialised are missing: the agent runs with the others, and takes an
    empty disk into use by `sled-agent datasets replace`. A new sled begins with `sled-agent init`.
    """
    settings = settings_of(config)
    logs.configure(level=settings.log.level, form=settings.log.format)
    try:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        code = daemon.run(settings, os.environ, _announcer(ready_file))
    except (CannotStart, OSError) as error:
        fail(str(error), FAILED)
    sys.exit(code)


def _announcer(ready_file: Path | None) -> Callable[[Ready], None]:
    def announce(ready: Ready) -> None:
        # The file first: whoever reads the line may open it.
        if ready_file is not None:
            ready.write(ready_file)
        click.echo(ready.line())

    return announce
