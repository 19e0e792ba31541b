"""How a program with verbs ends: whatever goes wrong, with a message and its exit status.

A traceback is for developers: DEPOT_TRACEBACK=1 shows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from agent.cli.failures import ExitCode, Failure, usage

if TYPE_CHECKING:
    from agent.cli.output import Manner


def run(command: click.Command, manner: Manner, arguments: Sequence[str]) -> int:
    """Run a program and return its exit status.

    Args:
        command: the program, which has the name that `manner` has.
        manner: how to report a failure from before the verb was known.
        arguments: without the name of the program.
    """
    try:
        result = command.main(list(arguments), prog_name=manner.program, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        return _failed(manner, _usage(error, manner.program))
    except click.Abort:
        click.echo(f"{manner.program}: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("DEPOT_TRACEBACK"):
            raise
        return _failed(manner, _internal(error, manner.program))
    return result if isinstance(result, int) else ExitCode.OK


def _usage(error: click.ClickException, program: str) -> Failure:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else program
    return usage(error.format_message(), f"`{path} --help` shows what it takes")


def _internal(error: Exception, program: str) -> Failure:
    return Failure(
        f"{type(error).__name__}: {error}",
        ExitCode.INTERNAL,
        hint=f"this is a fault of {program} itself; DEPOT_TRACEBACK=1 shows where",
    )


def _failed(manner: Manner, failure: Failure) -> int:
    from agent.cli.output import Output  # the daemon draws nothing

    Output(manner).failure(failure)
    return failure.exit_code
