"""The configurations that are shipped as examples: every key, explained, at its default."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import pytest

from agent.config.keys import AGENT, Form, Key
from agent.config.loading import load_form
from agent.config.toml_lines import key_lines
from agent.config.units import Address, parse_duration, parse_size
from coordinator.settings import COORDINATOR

PACKAGING: Final = Path(__file__).parents[2] / "packaging"


@dataclass(frozen=True)
class Example:
    """One file.

    Attributes:
        without_default: keys whose default is none, or is found when the program starts.
    """

    path: Path
    form: Form[Any]
    without_default: frozenset[str]

    @cached_property
    def text(self) -> str:
        """All of it: a key without a default stands in a comment."""
        return re.sub(r'^# (\w+ = \[?")', r"\1", self.path.read_text(), flags=re.M)

    def value(self, key: Key) -> object:
        value: object = tomllib.loads(self.text)
        for part in key.place:
            assert isinstance(value, dict)
            value = value[part]
        return value

    def comment_above(self, key: Key) -> str:
        lines = self.text.splitlines()
        index = key_lines(self.text)[key.place] - 2
        comment: list[str] = []
        while index >= 0 and lines[index].startswith("# "):
            comment.insert(0, lines[index].removeprefix("# "))
            index -= 1
        return "\n".join(comment)


EXAMPLES: Final = (
    Example(
        PACKAGING / "agent.example.toml",
        AGENT,
        frozenset(
            {
                "sled_id",
                "state_dir",
                "allowed_hosts",
                "datasets",
                "agent.advertise_url",
                "depot.advertise_url",
            }
        ),
    ),
    Example(
        PACKAGING / "coordinator.example.toml",
        COORDINATOR,
        frozenset({"database.url", "journal.keys", "snapshot.archive", "snapshot.endpoint"}),
    ),
)


ALL: Final = [(example, key) for example in EXAMPLES for key in example.form.keys]
WITH_DEFAULT: Final = [(each, key) for each, key in ALL if key.name not in each.without_default]


def name(value: object) -> str:
    return value.path.stem if isinstance(value, Example) else getattr(value, "name", "")


each_example: Final = pytest.mark.parametrize("example", EXAMPLES, ids=name)


@each_example
def test_it_is_a_valid_configuration(example: Example) -> None:
    load_form(example.form, example.path, {})


@each_example
def test_it_has_every_key_and_no_other(example: Example) -> None:
    names = {
        ".".join(part for part in place if isinstance(part, str))
        for place in key_lines(example.text)
    }
    tables = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
    arrays = example.form.arrays
    known = {key.name for key in example.form.keys if key.name not in arrays}
    assert names - tables == known | {f"{array}.path" for array in arrays}


@pytest.mark.parametrize(("example", "key"), ALL, ids=name)
def test_each_key_is_explained_with_its_default_and_unit(example: Example, key: Key) -> None:
    comment = example.comment_above(key)
    assert re.search(r"Default: |No default\.", comment), comment
    if "_bytes_per_s" in key.name:
        assert "Bytes per second" in comment
    elif key.name.endswith("_s"):
        assert "Seconds" in comment
    elif key.annotation is int and isinstance(example.value(key), str):
        assert "Size" in comment
    elif key.name.endswith("_level"):
        assert "Level" in comment
    elif key.annotation is int:
        assert "Count" in comment
    elif key.annotation is float:
        assert "Duration" in comment


@pytest.mark.parametrize(("example", "key"), WITH_DEFAULT, ids=name)
def test_the_value_that_stands_there_is_the_default(example: Example, key: Key) -> None:
    value = example.value(key)
    assert parsed(key, value) == key.default
    if isinstance(value, str | int) and not isinstance(value, bool):
        said = example.comment_above(key).replace("\n", " ")
        assert f"Default: {json.dumps(value)}" in said


def parsed(key: Key, value: object) -> object:
    if key.name in ("copy.allowed_sources", "sleds.allowed_networks"):
        assert isinstance(value, list)
        return tuple(map(ip_network, value))
    if key.name.rpartition(".")[2] == "listen":
        host, _, port = str(value).rpartition(":")
        return Address(host, int(port))
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and key.annotation is int:
        return parse_size(value)
    if isinstance(value, str) and key.annotation is float:
        return parse_duration(value)
    return Path(str(value)) if isinstance(key.default, Path) else value
