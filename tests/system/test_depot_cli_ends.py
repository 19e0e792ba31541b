"""How the command ends, as a shell sees it: real processes, pipes and terminals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.system.screens import TIMEOUT_S, environment, read_until, terminal
from tests.unit.fake_node import FakeNode

DEPOT: Final = str(Path(sys.executable).parent / "depot")
# Nothing listens there: a port below 1024 that no service uses.
NOWHERE: Final = "http://127.0.0.1:1"


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


def depot(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEPOT, *map(str, arguments)],
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


# ---- exit statuses


def test_help_documents_the_exit_statuses() -> None:
    ended = depot("--help")
    assert ended.returncode == 0
    assert "1  the bytes are wrong" in ended.stdout
    assert "4  unreachable" in ended.stdout


@pytest.mark.parametrize("arguments", [[], ["config"], ["pin"]])
def test_a_verb_that_is_missing_is_a_usage_error_with_help(arguments: list[str]) -> None:
    ended = depot(*arguments)
    assert ended.returncode == 2
    assert "Commands:" in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["polish"], ["ls", "--polish"], ["get"], ["get", "xyz"], ["--agent", ":", "ls"]]
)
def test_a_wrong_command_line_ends_with_2_and_names_the_help(arguments: list[str]) -> None:
    ended = depot(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith("depot: ")
    assert "--help` shows what it takes" in ended.stderr


def test_a_usage_error_in_json_is_a_document_too() -> None:
    ended = depot("get", "--json", "xyz")
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["exit_code"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["ls"],
        ["status"],
        ["copies", "--watch"],
        ["events", "--follow"],
        ["get", "f" * 64],
        ["put", __file__],
        ["copy", "f" * 64, "--from", NOWHERE],
        ["pin", "ls"],
        ["config", "set", "--generation", "1", "f" * 64],
        ["verify", __file__],
    ],
)
def test_a_server_that_does_not_answer_ends_every_verb_with_4(
    arguments: list[str], tmp_path: Path
) -> None:
    ended = subprocess.run(
        [DEPOT, *arguments, "--json"],
        env=environment(DEPOT_AGENT_URL=NOWHERE, DEPOT_DEPOT_URL=NOWHERE),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 4
    assert json.loads(ended.stdout)["error"]["code"] == "Unreachable"
    assert "depot: the " in ended.stderr
    assert NOWHERE in ended.stderr
    assert "Traceback" not in ended.stderr


def test_something_else_that_answers_is_not_taken_for_a_sled(node: FakeNode) -> None:
    ended = depot("--agent", node.depot_url, "ls")
    assert ended.returncode == 3
    assert "Traceback" not in ended.stderr


def test_a_reader_that_goes_away_ends_the_command_without_a_word(node: FakeNode) -> None:
    node.config = (1, [f"{index:064x}" for index in range(5000)])
    read, write = os.pipe()
    with subprocess.Popen(
        [DEPOT, "--quiet", *node.options, "ls"],
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
    ) as child:
        os.close(write)
        os.read(read, 10)
        os.close(read)
        _, err = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 141
    assert err == b""


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("count", [1, 5000])
def test_a_stdout_on_a_full_disk_is_a_failure_with_a_name(
    node: FakeNode, form: list[str], count: int
) -> None:
    node.config = (1, [f"{index:064x}" for index in range(count)])
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [DEPOT, "--quiet", *form, *node.options, "ls"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert ended.returncode == 5
    assert ended.stderr == "depot: stdout: No space left on device\n"


def test_ctrl_c_ends_with_130_and_no_traceback(node: FakeNode) -> None:
    node.config = (1, [])
    with terminal(DEPOT, *node.options, "copies", "--watch") as (child, screen):
        read_until(screen, b"Ctrl-C ends")
        child.send_signal(signal.SIGINT)
        shown = read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 130
    assert b"interrupted" in shown
    assert b"Traceback" not in shown


def test_ctrl_c_while_bytes_move_leaves_no_file_under_the_final_name(
    node: FakeNode, tmp_path: Path
) -> None:
    sha256 = node.hold(os.urandom(8 << 20))
    node.stall_after = 4 << 20
    target = tmp_path / "artifact"
    with terminal(DEPOT, *node.options, "get", sha256, "-o", target) as (child, screen):
        read_until(screen, b"fetching artifact")
        child.send_signal(signal.SIGINT)
        shown = read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 130
    assert b"Traceback" not in shown
    assert not target.exists()
    assert depot(*node.options, "get", sha256, "-o", target).returncode == 0


def test_ctrl_c_while_a_sled_does_not_read_ends_with_130_and_no_traceback(
    node: FakeNode, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(64 << 20))
    node.deaf = True
    with terminal(DEPOT, *node.options, "put", "--add", path) as (child, screen):
        read_until(screen, b"sending 1/1 large")
        child.send_signal(signal.SIGINT)
        shown = read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 130
    assert b"interrupted" in shown
    assert b"Traceback" not in shown
    assert b"1 hash stays in the config, generation 1" in b" ".join(shown.split())


def test_a_config_is_read_from_stdin(node: FakeNode) -> None:
    ended = subprocess.run(
        [DEPOT, *node.options, "config", "set", "-"],
        env=environment(),
        input=json.dumps({"generation": 3, "artifacts": ["f" * 64]}).encode(),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert node.config == (3, ["f" * 64])


# ---- what it looks like


def test_a_terminal_gets_bars(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "release.tar.gz"
    path.write_bytes(os.urandom(4 << 20))
    with terminal(DEPOT, *node.options, "put", "--add", path) as (child, screen):
        shown = read_until(screen, None).decode()
        assert child.wait(TIMEOUT_S) == 0
    assert "hashing 1/1 release.tar.gz" in shown
    assert "━" in shown
    assert "\x1b[" in shown


def test_anything_else_gets_plain_lines(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "release.tar.gz"
    path.write_bytes(os.urandom(4 << 20))
    ended = depot(*node.options, "put", "--add", path, FORCE_COLOR="1")
    assert ended.returncode == 0
    assert "sending: 4.0 MiB in " in ended.stderr
    assert "\x1b" not in ended.stdout + ended.stderr
    assert "━" not in ended.stderr


def test_no_color_is_respected(node: FakeNode) -> None:
    refusal = ("--agent", NOWHERE, "ls")
    with terminal(DEPOT, *refusal) as (_, screen):
        assert b"31m" in read_until(screen, None)
    with terminal(DEPOT, *refusal, NO_COLOR="1") as (_, screen):
        assert b"31m" not in read_until(screen, None)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_never_breaks_a_hash(node: FakeNode, columns: int) -> None:
    held = node.hold(b"x")
    node.config = (1, [held])
    node.refuse(f"GET /artifacts/{held}", 404, "NotFound", f"no good copy of {held} is left here")
    for verb in (["ls"], ["ls", held]):
        with terminal(DEPOT, *node.options, *verb, columns=columns) as (_, screen):
            rows = read_until(screen, None).decode().splitlines()
        assert any(held in row for row in rows)
        assert all(len(row) <= columns + 20 for row in rows)


def test_a_name_that_is_no_text_is_shown_escaped(node: FakeNode, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/b\xffd\x1b[31m"
    Path(os.fsdecode(path)).write_bytes(b"x")
    ended = subprocess.run(
        [DEPOT.encode(), *(o.encode() for o in node.options), b"put", b"--add", path],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 0
    assert b"\\udcff" in ended.stdout
    assert b"\x1b" not in ended.stdout + ended.stderr
