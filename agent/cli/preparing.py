"""`sled-agent init` and `check-config`: what is done before there is an agent."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from agent.cli.configured import FAILED, REFUSED, config_option, fail, settings_of
from agent.cli.printable import printable
from agent.config.settings import state_directory
from agent.config.units import format_size
from depot.config.state_dir import acknowledged
from depot.dataset.small_files import METADATA
from depot.errors import DatasetBusy, DepotError
from depot.initialise import InitReport, init_datasets

_REMEMBERED: Final = (
    "the state directory remembers generation {} as accepted, so every ledger stays as it is; for "
    "one that is behind, `depot config set` with a higher generation and all that the sled is to "
    "hold is the way out"
)
_RESET: Final = (
    "the state directory remembers a reset, so every ledger stays as it is: this node takes a "
    "first config without this"
)


@click.command(short_help="Make the configured directories into datasets.")
@config_option
@click.option(
    "--force",
    is_flag=True,
    help="Pass over datasets that are not there. Where no ledger can be read and the state "
    "directory remembers none, declare that there is none: a node whose ledger is `unknown` then "
    "takes a first config.",
)
def init(config: Path, force: bool) -> None:
    """Make the configured directories into datasets: write their markers. Idempotent.

    A directory that holds anything else than `lost+found` or `.zfs` is left alone. Refused while an
    agent runs on the datasets or their state directory: `sled-agent datasets replace` has a running
    agent take a new disk into use.
    """
    settings = settings_of(config)
    if settings.storage.require_mountpoint:
        _require_mounts(settings.dataset_paths)
    state_dir = state_directory(settings, os.environ)
    try:
        known = acknowledged(state_dir, settings.sled_id) if force else None
        reports = init_datasets(
            settings.dataset_paths, sled_id=settings.sled_id, force=force, state_dir=state_dir
        )
    except DatasetBusy as error:
        fail(
            str(error),
            REFUSED,
            "stop it first, or have the running agent take a new disk into use:\n"
            "  sled-agent datasets replace PATH",
        )
    except DepotError as error:
        fail(str(error), REFUSED)
    except OSError as error:
        fail(str(error), FAILED)
    for report in reports:
        click.echo(printable(_told(report)))
    if known is not None:
        said = _REMEMBERED.format(known.generation) if known.generation >= 0 else _RESET
        click.echo(f"sled-agent: {said}", err=True)
    for note in _owner_notes(settings.dataset_paths):
        click.echo(f"sled-agent: {printable(note)}", err=True)


@click.command("check-config", short_help="Name every mistake in the configuration.")
@config_option
def check_config(config: Path) -> None:
    """Check the configuration, environment included: every mistake, with its line."""
    settings = settings_of(config)
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
            fail(
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


def _told(report: InitReport) -> str:
    if report.dataset_id is None:
        return f"{report.path}: passed over: {report.problem}"
    what = "is now" if report.created else "was already"
    return f"{report.path}: {what} dataset {report.dataset_id}"
