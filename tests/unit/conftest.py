"""What tests of the `depot` command share: a scripted node, and the command pointed at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent.cli.depot import run
from tests.unit.fake_node import FakeNode


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ended]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


@pytest.fixture
def cli(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `depot` in this process against the scripted node."""

    def invoke(*arguments: object) -> Ended:
        status = run([*node.options, *map(str, arguments)])
        out, err = capsys.readouterr()
        return Ended(status, out, err)

    return invoke
