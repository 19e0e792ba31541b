"""The `sled-agent` command: run the daemon, prepare its datasets, check its configuration.

Rules: every end has a documented exit status; every bad one has a message on stderr that begins
with `sled-agent:` or with the place of the mistake. stdout carries results only: `run` prints one
line there, when both servers listen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import click

from agent.cli import ending
from agent.cli.lazy import LazyGroup

_EPILOG: Final = """\b
Exit status:
    0  fine
    1  the agent could not start, or `status` or `scrub` found something wrong
    2  usage, or a mistake in the configuration
    3  refused: a directory that is not ours or is in use, or by the agent
    4  no agent answers
    5  the answer could not be written to stdout: a full disk
   70  a fault of this program
  130  interrupted (Ctrl-C)
    *  128 + signal: ended at once by a second SIGTERM or SIGINT

\b
Every key of the configuration can be set by an environment variable, which
wins over the file: SLED_AGENT__STORAGE__QUOTA=5GiB,
SLED_AGENT__DATASETS=/m2/a,/m2/b

\b
The commands that ask a running agent take its address from --agent, else
--config, else DEPOT_AGENT_URL, as depot does.
"""
_HOMES: Final = {
    "status": "agent.cli.agent_status:status",
    "scrub": "agent.cli.agent_scrub:scrub",
    "quarantine": "agent.cli.agent_quarantine:quarantine",
    "datasets": "agent.cli.datasets:datasets",
    "run": "agent.cli.running:run",
    "init": "agent.cli.preparing:init",
    "check-config": "agent.cli.preparing:check_config",
}


@click.group(
    cls=LazyGroup,
    homes=_HOMES,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sled-depot", prog_name="sled-agent")
def sled_agent() -> None:
    """Keep the artifacts of one node on mirrored datasets, and serve them."""


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a failure is reported from before the verb was known."""

    program: ClassVar = "sled-agent"
    json: bool
    quiet: bool = False


def main() -> None:
    """Run the command with this process's arguments, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    return ending.run(sled_agent, _Manner(json="--json" in arguments), arguments)
