"""What the README and `make run` promise a newcomer is typed here, in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# Both use the default ports, so they must not run side by side.
pytestmark = [pytest.mark.xdist_group("default-ports"), pytest.mark.timeout(180)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The tracked files, with this environment instead of a new one: times kept for make."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    # A stale stamp would make the copy reinstall itself into the environment it shares.
    stamp = ROOT / ".venv" / ".installed"
    for name in ("pyproject.toml", "requirements.lock", "tests/independent.lock"):
        if not stamp.exists() or (ROOT / name).stat().st_mtime > stamp.stat().st_mtime:
            pytest.fail(f"{name} is newer than .venv: run 'make setup' first")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def shell_blocks(text: str) -> list[str]:
    """The README's shell blocks that are meant to be typed one after the other."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_shell_blocks_of_the_readme_do_what_they_say(clone: Path) -> None:
    blocks = shell_blocks((ROOT / "README.md").read_text())
    assert len(blocks) >= 5

    with in_a_terminal_of_its_own(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)], clone
    ) as typed:
        output, _ = typed.communicate(timeout=150)

    assert typed.returncode == 0, output
    sums = re.findall(r"^([0-9a-f]{64})  var/node\d/m2-[ab]/([0-9a-f]{64})$", output, re.M)
    assert len(sums) == 4
    assert all(found == name for found, name in sums)


@contextmanager
def in_a_terminal_of_its_own(command: list[str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a session of its own; whatever it started ends with the block."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def make_run(clone: Path) -> Iterator[subprocess.Popen[str]]:
    with in_a_terminal_of_its_own(["make", "run"], clone) as process:
        yield process


def test_make_run_starts_an_agent_and_its_three_commands_work(
    clone: Path, make_run: subprocess.Popen[str]
) -> None:
    commands: list[str] = []
    lines: list[str] = []
    assert make_run.stdout is not None
    for line in make_run.stdout:
        lines.append(line)
        if line.startswith("  .venv/bin/depot "):
            commands.append(line.strip())
        if line.startswith("Ctrl-C"):
            break
    assert len(commands) == 3, "".join(lines)

    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=clone, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    with urllib.request.urlopen("http://127.0.0.1:12348/health/live", timeout=10) as answer:
        assert answer.status == 200

    os.killpg(make_run.pid, signal.SIGINT)  # as Ctrl-C does
    make_run.wait(timeout=30)  # make itself ends by the signal; what counts is the agent
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://127.0.0.1:12348/health/live", timeout=10)
