"""The `depot-coordinator` command: the server itself, and the verbs that talk to one.

Every end has a documented exit status and, when it is a bad one, a message that begins with
`depot-coordinator:`, or with the place of a mistake in the configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import click

from agent.cli import ending
from agent.cli.lazy import LazyGroup
from coordinator.cli import options
from coordinator.cli.options import Common

EXIT_CODES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "fine; for `wait`: converged",
        1: "an artifact is lost (`wait`, `status`), the journal does not verify, or the server"
        " could not start (`run`)",
        2: "usage, a mistake in the configuration, or a file that is not there",
        3: "refused by the coordinator",
        4: "unreachable",
        5: "timed out (`wait`), or a local file could not be read or written",
        70: "a fault of this program",
        130: "interrupted (Ctrl-C)",
        141: "the reader of stdout went away",
    }
)
_CODES = "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXIT_CODES.items())
_EPILOG = f"\b\nExit status:\n{_CODES}"

_HOMES: Final = {
    "status": "coordinator.cli.status:status",
    "wait": "coordinator.cli.waiting:wait",
    "history": "coordinator.cli.history:history",
    "activate": "coordinator.cli.quiescing:activate",
    "quiesce": "coordinator.cli.quiescing:quiesce",
    "run": "coordinator.cli.running:run",
    "check-config": "coordinator.cli.checking:check_config",
    "sled": "coordinator.cli.sleds:sled",
    "trust": "coordinator.cli.trust:trust",
    "release": "coordinator.cli.releases:release",
    "target": "coordinator.cli.target:target",
    "coordinator": "coordinator.cli.coordinators:coordinator_group",
    "generation": "coordinator.cli.generation:generation",
    "journal": "coordinator.cli.journal:journal",
    "snapshot": "coordinator.cli.snapshots:snapshot",
}


@click.group(
    cls=LazyGroup,
    homes=_HOMES,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sled-depot", prog_name="depot-coordinator")
@options.shared_group
def depot_coordinator() -> None:
    """Get every release onto every sled.

    `run` is the server; the other verbs talk to one. The options here may also be given after
    the verb.
    """


def main() -> None:
    """Run the command with this process's arguments, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    # A failure from before the verb is known has to look for --json itself.
    return ending.run(depot_coordinator, Common(json="--json" in arguments), arguments)
