"""The `depot` command: its verbs, and how it ends.

Rules kept here:

- Every end has a documented exit status (`agent.cli.failures`) and, when it is a bad one, a message
  that begins with `depot:`. A traceback is for developers: DEPOT_TRACEBACK=1 shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from agent.cli import options
from agent.cli.failures import EXIT_CODES, ExitCode, Failure, usage
from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.verbs.config import config
from agent.cli.verbs.copy import copies, copy
from agent.cli.verbs.events import events
from agent.cli.verbs.get import get
from agent.cli.verbs.listing import ls
from agent.cli.verbs.pin import pin
from agent.cli.verbs.put import put
from agent.cli.verbs.status import status
from agent.cli.verbs.verify import verify

_CODES = "\n".join(f"{int(code):>5}  {meaning}" for code, meaning in EXIT_CODES.items())
_EPILOG = f"\b\nExit status:\n{_CODES}"


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sled-depot", prog_name="depot")
@options.shared_group
def depot() -> None:
    """Talk to a sled agent and a repo depot.

    The options here may also be given after the verb.
    """


for _verb in (config, put, get, ls, copy, copies, pin, events, status, verify):
    depot.add_command(_verb)


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
