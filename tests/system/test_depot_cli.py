"""The `depot` command against real agents: what an operator does, from an empty sled on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.system.agents import BIN, RunningAgent

TIMEOUT_S: Final = 90.0
REPOSITORY: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def depot(agent: RunningAgent, *arguments: object) -> Ended:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEPOT_")}
    done = subprocess.run(
        [BIN / "depot", *map(str, arguments)],
        env={**kept, "DEPOT_AGENT_URL": agent.agent_url, "DEPOT_DEPOT_URL": agent.depot_url},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def alpha(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "alpha") as agent:
        yield agent


@pytest.fixture
def beta(tmp_path: Path) -> Iterator[RunningAgent]:
    with RunningAgent(tmp_path / "beta") as agent:
        yield agent


@pytest.fixture
def release(tmp_path: Path) -> list[Path]:
    """Files of several sizes: empty, small, larger than any buffer."""
    directory = tmp_path / "release"
    directory.mkdir()
    paths = [directory / f"part-{index}" for index in range(12)]
    for index, path in enumerate(paths):
        path.write_bytes(os.urandom(index * 1000))
    paths[-1].write_bytes(os.urandom(9 << 20))
    return paths


def hashes(files: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def test_a_release_goes_from_files_to_one_sled_to_another_and_back(
    alpha: RunningAgent, beta: RunningAgent, release: list[Path], tmp_path: Path
) -> None:
    names = hashes(release)
    put = depot(alpha, "put", "--add", "--json", *release)
    assert put.status == 0, put.err
    assert [file["result"] for file in put.json["files"]] == ["stored"] * len(release)

    config = depot(alpha, "config", "get", "--json")
    (tmp_path / "config.json").write_text(config.out)
    assert depot(beta, "config", "set", tmp_path / "config.json").status == 0

    # More artifacts than a sled copies at once, named by their first characters.
    copied = depot(beta, "copy", "--from", alpha.depot_url, *(name[:12] for name in names))
    assert copied.status == 0, copied.err + beta.log_tail()
    for dataset in beta.datasets:
        assert {path.name for path in dataset.iterdir()} >= set(names)

    for name, path in zip(names, release, strict=True):
        target = tmp_path / f"back-{name}"
        assert depot(beta, "get", name, "-o", target).status == 0
        assert target.read_bytes() == path.read_bytes()
    assert depot(beta, "verify", *release).status == 0


def test_what_a_sled_holds_is_not_sent_again(alpha: RunningAgent, release: list[Path]) -> None:
    assert depot(alpha, "put", "--add", *release).status == 0
    again = depot(alpha, "put", "--add", "--json", *release)
    assert again.json["generation"] == 1
    assert {file["result"] for file in again.json["files"]} == {"held"}
    assert "sending: 0 B in " in again.err


def test_refusals_of_a_real_sled_end_with_3_and_say_what_to_do(
    alpha: RunningAgent, release: list[Path]
) -> None:
    empty = depot(alpha, "put", release[1])
    assert (empty.status, "depot put --add FILE" in empty.err) == (3, True)
    depot(alpha, "put", "--add", release[1])
    refused = {
        "NotInConfig": depot(alpha, "--json", "put", release[2]),
        "ARTIFACT_GENERATION": depot(alpha, "--json", "put", "--generation", 9, release[1]),
        "CONFIG_GENERATION": depot(alpha, "--json", "config", "set", "--generation", 0, "f" * 64),
        "NotFound": depot(alpha, "--json", "get", "f" * 64),
        "BadSource": depot(
            alpha, "--json", "copy", "--from", "http://192.0.2.1:1", *hashes(release[1:2])
        ),
    }
    for code, ended in refused.items():
        assert ended.status == 3, (code, ended)
        assert ended.json["error"]["code"] == code


def test_a_put_beyond_the_quota_says_what_is_free_and_leaves_the_config_as_it_was(
    tmp_path: Path, release: list[Path]
) -> None:
    env = {"SLED_AGENT__STORAGE__QUOTA": "6MiB", "SLED_AGENT__STORAGE__MAX_ARTIFACT_SIZE": "20MiB"}
    filling, large = tmp_path / "filling", tmp_path / "large"
    filling.write_bytes(os.urandom(4 << 20))
    large.write_bytes(os.urandom(5 << 20))
    with RunningAgent(tmp_path / "small", env=env) as agent:
        assert depot(agent, "put", "--add", filling).status == 0
        before = depot(agent, "--json", "config", "get").json["artifacts"]
        refused = depot(agent, "--json", "put", "--add", large, release[1])
        assert refused.status == 3
        assert refused.json["error"]["code"] == "QuotaExceeded"
        for dataset in agent.datasets:
            assert f"MiB on {dataset}" in refused.json["error"]["message"]
        after = depot(agent, "--json", "config", "get").json["artifacts"]
        assert after == sorted([*before, *hashes(release[1:2])])


def test_a_put_on_a_sled_that_lacks_a_dataset_says_which(
    alpha: RunningAgent, release: list[Path]
) -> None:
    alpha.run("datasets", "release", "--agent", alpha.agent_url, str(alpha.datasets[1]))
    ended = depot(alpha, "put", "--add", release[1])
    assert ended.status == 0
    assert "1 of 2" in ended.out
    assert f"dataset {alpha.datasets[1]} is released" in ended.err


def test_a_pin_holds_an_artifact_against_a_config(alpha: RunningAgent, release: list[Path]) -> None:
    name, other = hashes(release[1:3])
    depot(alpha, "put", "--add", *release[1:3])
    assert depot(alpha, "pin", "set", "boot", name[:8]).status == 0
    dropped = depot(alpha, "--json", "config", "set", "--generation", 2, other)
    assert dropped.status == 3
    assert dropped.json["error"]["code"] == "ArtifactInUse"
    assert depot(alpha, "--json", "pin", "ls").json == {"pins": {"boot": [name]}}
    assert depot(alpha, "pin", "rm", "boot").status == 0
    assert depot(alpha, "config", "set", "--generation", 2, other).status == 0


def test_status_says_which_dataset_is_out_and_why(alpha: RunningAgent, release: list[Path]) -> None:
    depot(alpha, "put", "--add", *release[:3])
    alpha.stop()
    away = alpha.datasets[1].with_name("away")
    alpha.datasets[1].rename(away)
    alpha.start()
    status = depot(alpha, "status")
    assert status.status == 0
    assert f"dataset {alpha.datasets[1]} is missing: " in status.out
    assert status.out.splitlines()[0].endswith("problems") or "problem" in status.out
    put = depot(alpha, "put", "--add", "--json", release[3])
    assert put.status == 0, put.err
    assert put.json["files"][0]["successful_writes"] == 1


def test_a_sled_whose_ledgers_are_gone_takes_a_higher_generation_from_the_command(
    alpha: RunningAgent, release: list[Path]
) -> None:
    names = hashes(release[:2])
    assert depot(alpha, "put", "--add", *release[:2]).status == 0
    alpha.stop()
    for dataset in alpha.datasets:
        (dataset / "artifact-config.json").write_bytes(b"torn")
    alpha.start()
    assert depot(alpha, "--json", "status").json["ledger"] == "behind"

    # What is for a ledger that is unknown says so, and changes nothing.
    alpha.stop()
    forced = alpha.attempt("init", "--config", str(alpha.config_path), "--force")
    assert forced.returncode == 0
    assert "remembers generation 1" in forced.stderr
    assert (alpha.datasets[0] / "artifact-config.json").read_bytes() == b"torn"
    alpha.start()

    added = depot(alpha, "put", "--add", release[2])
    assert added.status == 3
    assert "--add: the config to add to is not known" in added.err
    assert "--generation N" in added.err

    foreseen = depot(alpha, "config", "set", "--dry-run", "--generation", 2, *names)
    assert foreseen.status == 0, foreseen.err
    told = depot(alpha, "config", "set", "--generation", 2, *names)
    assert told.status == 0, told.err
    assert "cannot be shown" in told.err

    status = depot(alpha, "--json", "status").json
    assert (status["ledger"], status["generation"]) == ("clear", 2)
    assert not any("is not JSON" in warning for warning in status["warnings"])
    assert depot(alpha, "put", "--add", release[2]).status == 0
    assert depot(alpha, "ls").status == 0


def test_events_tell_the_story_in_order(alpha: RunningAgent, release: list[Path]) -> None:
    depot(alpha, "put", "--add", *release[:2])
    document = depot(alpha, "--json", "events").json
    kinds = [event["kind"] for event in document["events"]]
    assert [kind for kind in kinds if kind in ("config_changed", "put")] == [
        "config_changed",
        "put",
        "put",
    ]
    last = document["events"][-1]["sequence"]
    assert depot(alpha, "--json", "events", "--after", last).json["events"] == []


def test_a_download_goes_on_where_the_agent_died(alpha: RunningAgent, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 256
    source, target = tmp_path / "large", tmp_path / "artifact"
    source.write_bytes(content)
    (name,) = hashes([source])
    assert depot(alpha, "put", "--add", source).status == 0

    with start(alpha, "get", name, "-o", target) as child:
        part = wait_for_part(tmp_path, child)
        child.send_signal(signal.SIGSTOP)
        alpha.kill()
        child.send_signal(signal.SIGCONT)
        _, err = child.communicate(timeout=TIMEOUT_S)
    assert child.returncode == 4, err
    assert not target.exists()
    assert part.stat().st_size < len(content)

    alpha.start()
    ended = depot(alpha, "--json", "get", name, "-o", target)
    assert ended.status == 0, ended.err
    assert ended.json["resumed_bytes"] > 0
    assert hashes([target]) == [name]
    assert not part.exists()


def start(agent: RunningAgent, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BIN / "depot", *map(str, arguments)],
        env={**os.environ, "DEPOT_AGENT_URL": agent.agent_url, "DEPOT_DEPOT_URL": agent.depot_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_part(directory: Path, child: subprocess.Popen[bytes]) -> Path:
    """The file a download is kept in, once some of it is there."""
    while child.poll() is None:
        for part in directory.glob(".*.part"):
            if part.stat().st_size > 0:
                return part
    raise AssertionError(f"the download ended with {child.returncode} before it could be stopped")


@pytest.mark.timeout(600)
def test_the_demo_ends_well() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "packaging" / "demo.py"],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("OK: ")
    assert "Traceback" not in done.stderr
