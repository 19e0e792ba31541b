"""The options every verb of `depot` takes, before or after the verb.

`depot-coordinator` has a `Common` of its own, and `Shared` options too.

One mechanism: `Shared` adds the same options to a group or a verb. Each option leaves its value in
`Context.meta`, which click shares between a group and its verb and which is filled from the
outside in, so the one closest to the verb wins. `common` then fills what is missing from the
environment and the defaults, and the verb sees one frozen `Common`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Any, ClassVar, Concatenate, Final, Generic, ParamSpec, TypeVar
from urllib.parse import SplitResult, urlsplit

import click

from agent.config.units import parse_size
from agent.wire.fields import MAX_URL_LENGTH
from depot.artifact import ArtifactHash, Generation
from depot.errors import InvalidRequest

AGENT_VARIABLE: Final = "DEPOT_AGENT_URL"
DEPOT_VARIABLE: Final = "DEPOT_DEPOT_URL"
DEFAULT_AGENT_URL: Final = "http://127.0.0.1:12345"
DEFAULT_DEPOT_URL: Final = "http://127.0.0.1:12348"

MIN_RATE_BYTES_PER_S: Final = 1024

_KEY: Final = "depot.option."
P = ParamSpec("P")
R = TypeVar("R")
Decorated = TypeVar("Decorated", bound=Callable[..., object])
Merged = TypeVar("Merged")
Option = Callable[[Any], Any]
"""A decorator of click's, which gives back what it was given."""


@dataclass(frozen=True, slots=True)
class Common:
    """Which servers to talk to, and how to report."""

    program: ClassVar = "depot"
    agent_url: str = DEFAULT_AGENT_URL
    depot_url: str = DEFAULT_DEPOT_URL
    json: bool = False
    quiet: bool = False


def url(text: str) -> str:
    """Click type: the base URL of a server. A typing mistake is not an unreachable server."""
    try:
        return base_url(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def sha256(text: str) -> str:
    """Click type: a whole hash, lower-case from here on."""
    try:
        return str(ArtifactHash.parse(text))
    except InvalidRequest as error:
        raise click.BadParameter(str(error)) from None


def generation(text: str) -> Generation:
    """Click type: a generation."""
    try:
        return Generation.parse(text)
    except InvalidRequest as error:
        raise click.BadParameter(str(error)) from None


def size(text: str) -> int:
    """Click type: a size, as in the agent's configuration."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


class Number(click.IntRange):
    """Click type: a whole number; what is none is told by words that people use."""

    name = "whole number"


class Seconds(click.FloatRange):
    """Click type: seconds, and parts of them."""

    name = "number"


def rate(text: str) -> int:
    """Click type: bytes in a second, of which fewer than MIN_RATE_BYTES_PER_S are a slip.

    `curl` takes a bare number for bytes and `rsync` for KiB: whoever means the latter asks for a
    thousandth, which would take days. A depot gives up clients that are slower than that, too.
    """
    bytes_per_s = size(text)
    if bytes_per_s < MIN_RATE_BYTES_PER_S:
        raise click.BadParameter(
            f"expected at least 1KiB in a second, found {text!r}: without a unit it is bytes; "
            f'write "{text.removesuffix("B")}KiB" or "{text.removesuffix("B")}MiB"'
        )
    return bytes_per_s


def base_url(text: str) -> str:
    """Normalise a base URL: `host:port` gets a scheme, a slash at the end goes.

    Raises:
        ValueError: not an http(s) URL of a host, or with credentials, a query or a fragment.
    """
    if len(text) > MAX_URL_LENGTH:
        raise ValueError(f"expected a URL of at most {MAX_URL_LENGTH} characters")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        wrong = _fault(parts)
    except ValueError as error:
        raise ValueError(f"expected http://host:port, found {text!r}: {error}") from None
    if wrong:
        raise ValueError(f"expected http://host:port, found {text!r}: {wrong}")
    return parts._replace(path=parts.path.rstrip("/")).geturl()


def _fault(parts: SplitResult) -> str | None:
    if parts.scheme not in ("http", "https"):
        return f"the scheme is {parts.scheme!r}"
    if not parts.hostname:
        return "it has no host"
    if parts.username is not None:
        return "it has credentials"
    if parts.query or parts.fragment:
        return "it has a query or a fragment"
    if parts.netloc.endswith(":"):
        return "there is no port after the colon"  # `http:/host`, read as a host called http
    # Reading the port is what checks it: urlsplit raises ValueError by itself.
    return "the port is 0" if parts.port == 0 else None


def common(meta: Mapping[str, object], environ: Mapping[str, str]) -> Common:
    """Merge what was typed, else the environment, else the defaults.

    Raises:
        click.BadParameter: an environment variable does not hold a URL.
    """
    return Common(
        agent_url=url_of(meta, "agent", environ, AGENT_VARIABLE) or DEFAULT_AGENT_URL,
        depot_url=url_of(meta, "depot", environ, DEPOT_VARIABLE) or DEFAULT_DEPOT_URL,
        json=bool(remembered(meta, "json")),
        quiet=bool(remembered(meta, "quiet")),
    )


def remembered(meta: Mapping[str, object], name: str) -> object:
    """What was typed for an option that `remember` keeps; None when it was not."""
    return meta.get(_KEY + name)


def url_of(
    meta: Mapping[str, object], name: str, environ: Mapping[str, str], variable: str
) -> str | None:
    """A server's URL: what was typed, else the environment's, else None.

    Raises:
        click.BadParameter: the variable does not hold a URL.
    """
    typed = remembered(meta, name)
    if isinstance(typed, str):
        return typed
    if not environ.get(variable):
        return None
    try:
        return base_url(environ[variable])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=variable) from None


def remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Click callback: leave a value that was typed.

    An option that was not typed leaves the outer one alone.
    """
    if value:
        ctx.meta[f"{_KEY}{param.name}"] = value


def server_option(name: str, what: str, variable: str, default: str) -> Option:
    """The option that says where a server is."""
    return click.option(
        f"--{name}",
        type=url,
        metavar="URL",
        expose_value=False,
        callback=remember,
        help=f"{what}. [env: {variable}; default: {default}]",
    )


def json_option(help_text: str) -> Option:
    """The option for programs."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=remember, help=help_text
    )


QUIET: Final = click.option(
    "--quiet",
    "-q",
    is_flag=True,
    expose_value=False,
    callback=remember,
    help="No progress and no notes on stderr; warnings and errors still are.",
)


class Shared(Generic[Merged]):
    """The options that every verb of a program takes, before or after the verb.

    Args:
        options: each of them leaves what was typed with `remember`.
        common: merges that with the environment and the defaults.
    """

    def __init__(
        self,
        options: Sequence[Option],
        common: Callable[[Mapping[str, object], Mapping[str, str]], Merged],
    ) -> None:
        self._options = options
        self._common = common

    def group(self, function: Decorated) -> Decorated:
        """Give a group the shared options; its verbs see what was typed there."""
        for option in reversed(self._options):
            function = option(function)
        return function

    def verb(self, function: Callable[Concatenate[Merged, P], R]) -> Callable[P, R]:
        """Give a verb the shared options and, as its first argument, what they came to."""

        def invoke(*args: P.args, **kwargs: P.kwargs) -> R:
            meta = click.get_current_context().meta
            return function(self._common(meta, os.environ), *args, **kwargs)

        return self.group(update_wrapper(invoke, function))


_SHARED: Final = Shared(
    (
        server_option("agent", "Sled agent API", AGENT_VARIABLE, DEFAULT_AGENT_URL),
        server_option("depot", "Repo depot API", DEPOT_VARIABLE, DEFAULT_DEPOT_URL),
        json_option("One JSON document on stdout; one per line with --follow and --watch."),
        QUIET,
    ),
    common,
)
shared_group: Final = _SHARED.group
shared: Final = _SHARED.verb

files: Final = click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path)
)
