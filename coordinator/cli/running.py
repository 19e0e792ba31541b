"""`depot-coordinator run`: the server. Nobody else imports this, because it imports everything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from agent import logs
from agent.cli.configured import FAILED, config_option
from agent.cli.printable import printable
from agent.process import CannotStart
from coordinator.cli.checking import settings_of

try:
    from coordinator import daemon
    from coordinator.daemon import Ready
except ModuleNotFoundError as error:  # installed as on a node
    raise click.ClickException(
        f"a coordinator needs more than a node does, and {error.name} is not installed: "
        "pip install 'sled-depot[coordinator]'"
    ) from error


@click.command(short_help="Run a coordinator until SIGTERM or SIGINT.")
@config_option
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write url and pid as JSON here, once the server listens.",
)
def run(config: Path, ready_file: Path | None) -> None:
    """Run a coordinator until SIGTERM or SIGINT; a second one ends it at once.

    The database is migrated, and the staging directory is made when it is not there.
    """
    settings = settings_of(config)
    logs.configure(level=settings.log.level, form=settings.log.format)
    try:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        code = daemon.run(settings, os.environ, _announcer(ready_file))
    except (CannotStart, OSError) as error:
        click.echo(f"depot-coordinator: {printable(str(error))}", err=True)
        code = FAILED
    sys.exit(code)


def _announcer(ready_file: Path | None) -> Callable[[Ready], None]:
    def announce(ready: Ready) -> None:
        # The file first: whoever reads the line may open it.
        if ready_file is not None:
            ready.write(ready_file)
        click.echo(ready.line())

    return announce
