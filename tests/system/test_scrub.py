"""An agent finds rot by itself, and an operator can watch that, start it and pause it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.agents import BIN, RunningAgent
from tests.system.asking import ask, await_status, put, put_config, status_of

CONTENTS = [os.urandom(3 << 20) for _ in range(3)]
HASHES = [hashlib.sha256(content).hexdigest() for content in CONTENTS]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "node") as agent:
        assert put_config(agent, 1, *HASHES).status == 204
        for sha256, content in zip(HASHES, CONTENTS, strict=True):
            assert put(agent, sha256, 1, content).status == 200
        yield agent


def scrub(agent: RunningAgent, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "sled-agent", "scrub", *arguments, "--agent", agent.agent_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def rot(path: Path) -> None:
    """Change one byte on the disk, and keep the times."""
    times = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(1 << 20)
        byte = file.read(1)
        file.seek(1 << 20)
        file.write(bytes([byte[0] ^ 1]))
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def verified_at(agent: RunningAgent, sha256: str) -> list[str]:
    copies = ask(agent.agent_url, f"/artifacts/{sha256}").body["copies"]
    return [copy["verified_at"] for copy in copies]


def by_dataset(document: dict[str, Any]) -> list[dict[str, Any]]:
    datasets: list[dict[str, Any]] = document["datasets"]
    return datasets


def test_b5_b6_rot_on_either_mirror_is_found_and_healed_within_one_pass(
    node: RunningAgent,
) -> None:
    rot(node.datasets[0] / HASHES[0])
    rot(node.datasets[1] / HASHES[2])

    done = scrub(node, "start", "--wait", "--json")

    assert done.returncode == 1, done.stderr
    assert [d["last"]["bad"] for d in by_dataset(json.loads(done.stdout))] == [1, 1]
    assert [d["last"]["copies"] for d in by_dataset(json.loads(done.stdout))] == [3, 3]
    await_status(node, lambda status: not any(d["waiting"] for d in status["scrub"]["datasets"]))
    for dataset in node.datasets:
        for sha256, content in zip(HASHES, CONTENTS, strict=True):
            assert (dataset / sha256).read_bytes() == content
    again = scrub(node, "start", "--wait")
    assert again.returncode == 0
    assert "verifying: " in again.stderr
    assert "last pass 3 copies, 9.0 MiB" in again.stdout


def test_what_was_verified_and_what_was_paused_is_known_after_a_kill(node: RunningAgent) -> None:
    assert scrub(node, "start", "--wait").returncode == 0
    before = [verified_at(node, sha256) for sha256 in HASHES]
    paused = scrub(node, "pause", "--for", "30m")
    assert (paused.returncode, "paused until" in paused.stdout) == (0, True)
    assert scrub(node, "pause", "--for", "30y").returncode == 2
    assert node.stop() == 0

    node.start()

    assert [verified_at(node, sha256) for sha256 in HASHES] == before
    assert [d["state"] for d in by_dataset(status_of(node)["scrub"])] == ["paused", "paused"]
    shown = scrub(node, "status")
    assert (shown.returncode, "paused until" in shown.stdout) == (0, True)
    assert "paused until" not in scrub(node, "resume").stdout
    node.kill()
    node.start()
    assert [verified_at(node, sha256) for sha256 in HASHES] == before
    assert status_of(node)["scrub"]["paused_until"] is None


def test_without_an_agent_there_is_an_answer_all_the_same(node: RunningAgent) -> None:
    assert node.stop() == 0
    found = scrub(node, "status", "--json")
    assert found.returncode == 4
    assert "error" in json.loads(found.stdout)
    assert found.stderr.startswith("sled-agent: ")
