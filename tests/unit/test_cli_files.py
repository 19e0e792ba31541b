"""Files of the user's that a verb may not touch: a clear failure, whichever verb meets it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

# Imported while we still may: a verb is looked up when it is first named.
from agent.cli.verbs import config, get, put, verify
from tests.unit.conftest import Cli
from tests.unit.fake_node import FakeNode

VERBS = (config, get, put, verify)
NOBODY = 65534
ARTIFACT = "f" * 64
COMMANDS = [
    ["get", ARTIFACT, "-o"],
    ["get", ARTIFACT, "--force", "-o"],
    ["put", "--add"],
    ["verify"],
    ["config", "set"],
]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A file in a directory that this process may not look into."""
    directory = tmp_path / "closed"
    directory.mkdir()
    path = directory / "file"
    path.write_bytes(b"x")
    directory.chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield path
    finally:
        os.seteuid(before)
        directory.chmod(0o700)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_one_may_not_look_at_is_no_fault_of_the_program(
    cli: Cli, closed: Path, command: list[str]
) -> None:
    ended = cli("--json", *command, closed)
    assert ended.status == 2
    assert f"{closed}: Permission denied" in ended.json["error"]["message"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_file_can_have_is_a_usage_error(
    cli: Cli, node: FakeNode, tmp_path: Path, command: list[str]
) -> None:
    ended = cli("--json", *command, tmp_path / ("x" * 300))
    assert ended.status == 2
    assert "xxx: File name too long" in ended.json["error"]["message"]
    assert not node.requests


def test_a_directory_one_may_not_write_to_is_named(cli: Cli, node: FakeNode, closed: Path) -> None:
    sha256 = node.hold(b"x")
    ended = cli("--json", "get", sha256, "-o", closed.parent)
    assert ended.status == 2
    assert f"{closed.parent}" in ended.json["error"]["message"]
    assert "Permission denied" in ended.json["error"]["message"]


def test_a_directory_is_no_file_to_read(cli: Cli, tmp_path: Path) -> None:
    for command in (["put", "--add"], ["verify"]):
        ended = cli("--json", *command, tmp_path)
        assert ended.status == 2
        assert "expected a regular file, found a directory" in ended.json["error"]["message"]


def test_a_write_that_fails_names_the_file(cli: Cli, node: FakeNode, tmp_path: Path) -> None:
    sha256 = node.hold(bytes(2 << 20))
    target = tmp_path / "artifact"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        ended = cli("--json", "get", sha256, "-o", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.status == 5
    assert ended.json["error"]["message"] == f"{target}: File too large"
