from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.depot_coordinator import run
from tests.coordinator.running import InThread
from tests.unit.fake_node import FakeNode


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class Cli:
    """Runs `depot-coordinator` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self._capsys.readouterr()
        code = run([str(each) for each in arguments])
        told = self._capsys.readouterr()
        return Done(code, told.out, told.err)

    def fine(self, *arguments: object) -> str:
        done = self(*arguments)
        assert done.code == 0, done.err
        return done.out


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InThread]:
    with InThread(tmp_path / "coordinator") as server:
        yield server


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, server: InThread
) -> Cli:
    monkeypatch.setenv("DEPOT_COORDINATOR_URL", server.url)
    return Cli(capsys)


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node
