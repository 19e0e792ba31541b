"""The options every verb of `depot-coordinator` takes, before or after the verb.

The mechanism is that of `agent.cli.options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import update_wrapper
from typing import ClassVar, Concatenate, Final, ParamSpec, TypeVar

import click

from agent.cli.options import REPORTING, remember, remembered, url, url_of

COORDINATOR_VARIABLE: Final = "DEPOT_COORDINATOR_URL"
DEFAULT_URL: Final = "http://127.0.0.1:12340"

P = ParamSpec("P")
R = TypeVar("R")
Decorated = TypeVar("Decorated", bound=Callable[..., object])


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


_OPTIONS: Final = (
    click.option(
        "--coordinator",
        type=url,
        metavar="URL",
        expose_value=False,
        callback=remember,
        help=f"Coordinator's API. [env: {COORDINATOR_VARIABLE}; default: {DEFAULT_URL}]",
    ),
    *REPORTING,
)


def shared_group(function: Decorated) -> Decorated:
    """Give a group the shared options; its verbs see what was typed there."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def shared(function: Callable[Concatenate[Common, P], R]) -> Callable[P, R]:
    """Give a verb the shared options and, as its first argument, what they came to."""

    def invoke(*args: P.args, **kwargs: P.kwargs) -> R:
        meta = click.get_current_context().meta
        return function(common(meta, os.environ), *args, **kwargs)

    return shared_group(update_wrapper(invoke, function))
