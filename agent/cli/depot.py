"""The `depot` command: its verbs, and how it ends.

Rules kept here:

- Every end has a documented exit status (`agent.cli.failures`) and, when it is a bad one, a message
  that begins with `depot:`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from agent.cli import ending, options
from agent.cli.failures import EXIT_CODES
from agent.cli.lazy import LazyGroup
from agent.cli.options import Common

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
    "snapshot": "agent.cli.verbs.snapshot:snapshot",
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
    # A failure from before the verb is known has to look for --json itself.
    return ending.run(depot, Common(json="--json" in arguments), arguments)
