"""The options every verb of `depot-coordinator` takes, before or after the verb.

The mechanism is that of `agent.cli.options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from agent.cli.options import QUIET, Shared, json_option, remembered, server_option, url_of

COORDINATOR_VARIABLE: Final = "DEPOT_COORDINATOR_URL"
DEFAULT_URL: Final = "http://127.0.0.1:12340"


@dataclass(frozen=True, slots=True)
class Common:
    """Which coordinator to talk to, and how to report."""

    program: ClassVar = "depot-coordinator"
    url: str = DEFAULT_URL
    json: bool = False
    quiet: bool = False


def common(meta: Mapping[str, object], environ: Mapping[str, str]) -> Common:
    """Merge what was typed, else the environment, else the defaults.

    Raises:
        click.BadParameter: the environment variable does not hold a URL.
    """
    return Common(
        url=url_of(meta, "coordinator", environ, COORDINATOR_VARIABLE) or DEFAULT_URL,
        json=bool(remembered(meta, "json")),
        quiet=bool(remembered(meta, "quiet")),
    )


_SHARED: Final = Shared(
    (
        server_option("coordinator", "Coordinator's API", COORDINATOR_VARIABLE, DEFAULT_URL),
        json_option("One JSON document on stdout."),
        QUIET,
    ),
    common,
)
shared_group: Final = _SHARED.group
shared: Final = _SHARED.verb
