"""The `sled-agent` command: run the daemon, prepare its datasets, check its configuration.

Rules: every end has a documented exit status; every bad one has a message on stderr that begins
with `sled-agent:` or with the place of the mistake. stdout carries results only: `run` prints one
line there, when both servers listen.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import click

from agent import daemon, logs
from agent.assembly import CannotStart
from agent.cli.agent_quarantine import quarantine
from agent.cli.agent_scrub import scrub
from agent.cli.agent_status import status
from agent.cli.datasets import datasets
from agent.cli.formats import printable
from agent.config.loading import ConfigurationError, load
from agent.config.settings import Settings, state_directory
from agent.config.units import format_size
from agent.daemon import Ready
from depot.errors import DatasetBusy, DepotError
from depot.initialise import InitReport, init_datasets
from depot.small_files import METADATA

FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
_EPILOG: Final = """\b
Exit status:
    0  fine
    1  the agent could not start, or `status` or `scrub` found something wrong
    2  usage, or a mistake in the configuration
    3  refused: a directory that is not ours, an answer of the agent
    4  no agent answers
    5  the answer could not be written to stdout: a full disk
    *  128 + signal: ended at once by a second SIGTERM or SIGINT

\b
Every key of the configuration can be set by an environment variable, which
wins over the file: SLED_AGENT__STORAGE__QUOTA=5GiB,
SLED_AGENT__DATASETS=/m2/a,/m2/b
"""

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The configuration, in TOML.",
)


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sled-depot", prog_name="sled-agent")
def main() -> None:
    """Keep the artifacts of one node on mirrored datasets, and serve them."""


main.add_command(status)
main.add_command(scrub)
main.add_command(quarantine)
main.add_command(datasets)


@main.command(short_help="Run the agent until SIGTERM or SIGINT.")
@config_option
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write agent_url, depot_url and pid as JSON here, once both servers listen.",
)
def run(config: Path, ready_file: Path | None) -> None:
    """Run the agent until SIGTERM or SIGINT; a second one ends it at once.

    Datasets that were never initialised are missing: the agent runs, and takes them into use
    after `sled-agent init`.
    """
    settings = _settings(config)
    logs.configure(level=settings.log.level, form=settings.log.format)
    try:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        code = daemon.run(settings, os.environ, _announcer(ready_file))
    except (CannotStart, OSError) as error:
        _fail(str(error), FAILED)
    sys.exit(code)


@main.command(short_help="Make the configured directories into datasets.")
@config_option
@click.option(
    "--force",
    is_flag=True,
    help="Pass over datasets that are not there, and declare that unreadable or missing ledgers "
    "hold nothing, so that a node which answers LedgerUnknown takes its first config.",
)
def init(config: Path, force: bool) -> None:
    """Make the configured directories into datasets: write their markers. Idempotent.

    A directory that holds anything else than `lost+found` or `.zfs` is left alone.
    """
    settings = _settings(config)
    if settings.storage.require_mountpoint:
        _require_mounts(settings.dataset_paths)
    try:
        reports = init_datasets(settings.dataset_paths, sled_id=settings.sled_id, force=force)
    except DatasetBusy as error:
        _fail(f"{error}; stop the agent first", REFUSED)
    except DepotError as error:
        _fail(str(error), REFUSED)
    except OSError as error:
        _fail(str(error), FAILED)
    for report in reports:
        click.echo(printable(_told(report)))
    for note in _owner_notes(settings.dataset_paths):
        click.echo(f"sled-agent: {printable(note)}", err=True)


@main.command("check-config", short_help="Name every mistake in the configuration.")
@config_option
def check_config(config: Path) -> None:
    """Check the configuration, environment included: every mistake, with its line."""
    settings = _settings(config)
    datasets = ", ".join(str(path) for path in settings.dataset_paths)
    lines = (
        f"{config}: fine",
        f"  datasets   {datasets}, {format_size(settings.storage.quota_bytes)} each",
        f"  state      {state_directory(settings, os.environ)}",
        f"  agent API  {settings.agent.listen}",
        f"  depot API  {settings.depot.listen}",
    )
    for line in lines:
        click.echo(printable(line))


def _require_mounts(paths: Sequence[Path]) -> None:
    """Refuse to mark a directory under which the disk is not mounted."""
    for path in paths:
        if path.exists() and not path.is_mount():
            _fail(
                f"{path} is not a mount of its own, and storage.require_mountpoint is set: "
                "mount the dataset first",
                REFUSED,
            )


def _owner_notes(paths: Sequence[Path]) -> Iterator[str]:
    """Warn of a marker that the agent will not be able to read: init was run as the wrong user."""
    for path in paths:
        with suppress(OSError):
            root, metadata = path.stat(), (path / METADATA).stat()
            if root.st_uid != metadata.st_uid:
                yield (
                    f"note: {path} belongs to {_user(root.st_uid)}, its {METADATA} to "
                    f"{_user(metadata.st_uid)}: an agent that runs as {_user(root.st_uid)} cannot "
                    f"use it; run init as that user, or chown -R {path / METADATA}"
                )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"


def _settings(config: Path) -> Settings:
    try:
        return load(config, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(printable(problem), err=True)
        sys.exit(USAGE)


def _announcer(ready_file: Path | None) -> Callable[[Ready], None]:
    def announce(ready: Ready) -> None:
        # The file first: whoever reads the line may open it.
        if ready_file is not None:
            ready.write(ready_file)
        click.echo(ready.line())

    return announce


def _told(report: InitReport) -> str:
    if report.dataset_id is None:
        return f"{report.path}: passed over: {report.problem}"
    what = "is now" if report.created else "was already"
    return f"{report.path}: {what} dataset {report.dataset_id}"


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"sled-agent: {printable(message)}", err=True)
    sys.exit(code)
