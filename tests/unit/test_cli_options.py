from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent.cli import options
from agent.cli.depot import depot
from agent.cli.lazy import LazyGroup
from agent.cli.options import (
    DEFAULT_AGENT_URL,
    DEFAULT_DEPOT_URL,
    Common,
    Number,
    Seconds,
    base_url,
    common,
)
from coordinator.cli.depot_coordinator import depot_coordinator


@click.group()
@options.shared_group
def tool() -> None:
    """A tool."""


@tool.group()
@options.shared_group
def nested() -> None:
    """A group."""


@click.command()
@click.option("--own", is_flag=True)
@options.shared
def show(common: Common, own: bool) -> None:
    """Print what the options came to."""
    click.echo(f"{common.agent_url} {common.depot_url} {common.json} {common.quiet} {own}")


tool.add_command(show)
nested.add_command(show)


def seen(*arguments: str, **environ: str) -> str:
    result = CliRunner().invoke(tool, arguments, env=environ)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


DEFAULTS = f"{DEFAULT_AGENT_URL} {DEFAULT_DEPOT_URL} False False False"


def test_defaults_hold_when_nothing_is_given() -> None:
    assert seen("show") == DEFAULTS


@pytest.mark.parametrize(
    "arguments",
    [
        ("--agent", "http://a:1", "--json", "show"),
        ("show", "--agent", "http://a:1", "--json"),
        ("--json", "show", "--agent", "http://a:1"),
        ("--json", "nested", "--agent", "http://a:1", "show"),
        ("nested", "--json", "show", "--agent", "a:1"),
    ],
)
def test_an_option_counts_before_and_after_the_verb(arguments: tuple[str, ...]) -> None:
    assert seen(*arguments) == f"http://a:1 {DEFAULT_DEPOT_URL} True False False"


def test_the_option_closest_to_the_verb_wins() -> None:
    assert seen("--agent", "http://a:1", "nested", "--agent", "http://b:2", "show").startswith(
        "http://b:2 "
    )
    assert seen("--agent", "http://a:1", "show", "--agent", "http://c:3").startswith("http://c:3 ")


def test_what_was_typed_wins_over_the_environment_and_that_over_the_default() -> None:
    environ = {"DEPOT_AGENT_URL": "http://e:1", "DEPOT_DEPOT_URL": "http://e:2"}
    assert seen("show", **environ) == "http://e:1 http://e:2 False False False"
    assert seen("show", "--depot", "d:9", **environ).split()[:2] == ["http://e:1", "http://d:9"]


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert seen("show", DEPOT_AGENT_URL="") == DEFAULTS


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(click.BadParameter) as caught:
        common({}, {"DEPOT_AGENT_URL": "ftp://a"})
    assert "DEPOT_AGENT_URL" in caught.value.format_message()


def test_a_verbs_own_option_is_its_own() -> None:
    assert seen("--quiet", "show", "--own") == DEFAULTS.replace(
        "False False False", "False True True"
    )


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://127.0.0.1:12345/", "http://127.0.0.1:12345"),
        ("localhost:80", "http://localhost:80"),
        ("[fd00::1]:12348", "http://[fd00::1]:12348"),
        ("https://depot.example/prefix/", "https://depot.example/prefix"),
    ],
)
def test_a_base_url_is_normalised(typed: str, url: str) -> None:
    assert base_url(typed) == url


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "http://",
        "ftp://host",
        "http://user:secret@host",
        "http://host?x=1",
        "http://host#x",
        "http://host:0",
        "http://host:65536",
        "http://host:port",
        "http://[::1",
        "http://host:",
        "htp:/host",
        "http:/127.0.0.1:12345",
    ],
)
def test_what_is_not_a_base_url_is_a_usage_error_that_names_it(typed: str) -> None:
    result = CliRunner().invoke(tool, ["--agent", typed, "show"])
    assert result.exit_code == 2
    assert f"expected http://host:port, found {typed!r}" in result.output


@pytest.mark.parametrize(
    ("kind", "typed", "said"),
    [
        (Number(1, 9), "ten", "'ten' is not a valid whole number"),
        (Number(1, 9), "1.5", "'1.5' is not a valid whole number"),
        (Number(1, 9), "10", "10 is not in the range 1<=x<=9"),
        (Seconds(min=0), "1s", "'1s' is not a valid number"),
        (Seconds(min=0), "-1", "-1.0 is not in the range x>=0"),
    ],
)
def test_what_is_no_number_is_told_in_words_that_people_use(
    kind: click.ParamType[Any], typed: str, said: str
) -> None:
    with pytest.raises(click.BadParameter) as caught:
        kind.convert(typed, None, None)
    assert said in caught.value.message


def commands(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, LazyGroup):
        command.load()
    if isinstance(command, click.Group):
        for child in command.commands.values():
            yield from commands(child)


def test_no_verb_has_numbers_of_clicks_own() -> None:
    own = [
        (command.name, param.name)
        for command in [*commands(depot), *commands(depot_coordinator)]
        for param in command.params
        if type(param.type) in (click.IntRange, click.FloatRange)
    ]
    assert not own


def test_every_verb_takes_every_shared_option() -> None:
    found = list(commands(depot))
    assert {"put", "ls", "set"} <= {command.name for command in found}
    for command in found:
        names = {name for param in command.params for name in param.opts}
        assert {"--agent", "--depot", "--json", "--quiet"} <= names, command.name
