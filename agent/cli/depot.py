"""The `depot` command: its verbs, and how it ends.

Rules kept here:

- Every end has a documented exit status (`agent.cli.failures`) and, when it is a bad one, a message
  that begins with `depot:`. A traceback is for developers: DEPOT_TRACEBACK=1 shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from agent.cli import options
from agent.cli.failures import EXIT_CODES, ExitCode, Failure, usage
from agent.cli.lazy import LazyGroup
from agent.cli.options import Common
from agent.cli.output import Output

_CODES = "\n".join(f"{int(code):>5}  {meaning}" for code, meaning in EXIT_CODES.items())
_EPILOG = f"\b\nExit status:\n{_CODES}"

_HOMES: Final = {
    "config": "agent.cli.verbs.config:config",
    "put": "agent.cli.verbs.put:put",
    "get": "agent.cli.verbs.get:get",
    "ls": "agent.cli.verbs.listing:ls",
    "copy": "agent.cli.verbs.copy:copy",
    "copies": "agent.cli.verbs.copy:copies",
    "pin": "agent.cli.verbs.pin:pin",
    "events": "agent.cli.verbs.events:events",
    "status": "agent.cli.verbs.status:status",
    "verify": "agent.cli.verbs.verify:verify",
}


@click.group(
    cls=LazyGroup,
    homes=_HOMES,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sled-depot", prog_name="depot")
@options.shared_group
def depot() -> None:
    """Talk to a sled agent and a repo depot.

    The options here may also be given after the verb.
    """


def main() -> None:
    """Run the command with this process's arguments, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    try:
        result = depot.main(list(arguments), prog_name="depot", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        return _failed(arguments, _usage(error))
    except click.Abort:
        click.echo("depot: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("DEPOT_TRACEBACK"):
            raise
        return _failed(arguments, _internal(error))
    return result if isinstance(result, int) else ExitCode.OK


def _usage(error: click.ClickException) -> Failure:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "depot"
    return usage(error.format_message(), f"`{path} --help` shows what it takes")


def _internal(error: Exception) -> Failure:
    return Failure(
        f"{type(error).__name__}: {error}",
        ExitCode.INTERNAL,
        hint="this is a fault of depot itself; DEPOT_TRACEBACK=1 shows where",
    )


def _failed(arguments: Sequence[str], failure: Failure) -> int:
    """Show a failure from before the verb was known, so that --json has to be looked for."""
    Output(Common(json="--json" in arguments)).failure(failure)
    return failure.exit_code
