"""The life of a coordinator's process: start, a second one, signals, drain, quiesce."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.coordinator.releases.builder import ReleaseBuilder, small_release, write_zip
from tests.system.coordinators import RunningCoordinator
from tests.system.programs import BIN

END_TIMEOUT_S = 60


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[RunningCoordinator]:
    env = {"DEPOT_COORDINATOR__DRAIN_TIMEOUT_S": "1"}
    with RunningCoordinator(tmp_path / "c", env=env) as running:
        yield running


def ask(coordinator: RunningCoordinator, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "depot-coordinator", "--coordinator", coordinator.url, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=END_TIMEOUT_S,
        check=False,
    )


def upload(coordinator: RunningCoordinator, tmp_path: Path) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    builder: ReleaseBuilder = small_release(expires=until)
    (tmp_path / "root.json").write_bytes(builder.trusted)
    assert ask(coordinator, "trust", "add", tmp_path / "root.json").returncode == 0
    done = ask(coordinator, "release", "upload", write_zip(tmp_path, builder.publish()))
    assert done.returncode == 0, done.stderr


def log_of(coordinator: RunningCoordinator) -> str:
    return coordinator.log_path.read_text()


def test_the_ready_file_says_where_it_listens_and_s3_sigterm_ends_it_with_0(
    coordinator: RunningCoordinator,
) -> None:
    ready = json.loads(coordinator.ready_path.read_text())
    assert ready == {"url": coordinator.url, "pid": coordinator.pid}
    assert ask(coordinator, "generation", "show").returncode == 0
    assert coordinator.stop() == 0
    assert "stopped" in log_of(coordinator)


def test_s3_a_second_one_on_the_same_staging_is_refused(coordinator: RunningCoordinator) -> None:
    done = coordinator.attempt("run", "--config", str(coordinator.config_path))
    assert done.returncode == 1
    assert "another coordinator is running on" in done.stderr
    assert "agent" not in done.stderr


def test_f5_what_is_only_staged_is_named_when_it_ends_and_is_there_afterwards(
    coordinator: RunningCoordinator, tmp_path: Path
) -> None:
    upload(coordinator, tmp_path)
    assert coordinator.stop() == 0
    assert "artifacts stay in the staging depot, and on no sled that says so" in log_of(coordinator)
    coordinator.start()
    status = json.loads(ask(coordinator, "status", "--json").stdout)
    assert (status["staging"]["only_here"], status["releases"][0]["missing"]) == (2, 2)


def test_a_quiescing_coordinator_without_anything_of_its_own_ends_by_itself(
    coordinator: RunningCoordinator,
) -> None:
    done = ask(coordinator, "quiesce")
    assert (done.returncode, done.stdout) == (
        0,
        "the coordinator takes no more uploads and ends\n",
    )
    assert coordinator.process is not None
    assert coordinator.process.wait(END_TIMEOUT_S) == 0


def test_wait_ends_with_5_when_it_takes_too_long(
    coordinator: RunningCoordinator, tmp_path: Path
) -> None:
    upload(coordinator, tmp_path)
    done = ask(coordinator, "wait", "--timeout", "0", "--json")
    assert done.returncode == 5
    document = json.loads(done.stdout)
    assert (document["converged"], document["error"]["code"]) == (False, "TimedOut")
