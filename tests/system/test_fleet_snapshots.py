"""A snapshot in the fleet's own depots: published, held by every sled, downloaded without one."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.snapshots.making import database
from tests.system.agents import RunningAgent
from tests.system.coordinators import RunningCoordinator
from tests.system.programs import BIN

TIMEOUT_S: Final = 300


class Fleet:
    """A coordinator and two sleds."""

    def __init__(self, coordinator: RunningCoordinator, sleds: list[RunningAgent]) -> None:
        self.coordinator = coordinator
        self.sleds = sleds

    def ask(self, *arguments: object) -> str:
        return ran("depot-coordinator", "--coordinator", self.coordinator.url, *arguments)

    def snapshot(self, verb: str, *arguments: object) -> Any:
        """Run a verb of `depot snapshot`; its last line."""
        archive = f"fleet+{self.coordinator.url}"
        out = ran("depot", "snapshot", verb, *arguments, "--archive", archive)
        return json.loads(out.splitlines()[-1])

    def copies_of(self, sha256: str) -> list[Path]:
        found = [dataset / sha256 for sled in self.sleds for dataset in sled.datasets]
        return [path for path in found if path.exists()]

    def newest(self) -> str:
        (listed,) = json.loads(self.ask("snapshot", "held", "--json"))["items"]
        return str(listed["newest"]["sha256"])


def ran(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [BIN / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        env = {"DEPOT_COORDINATOR__REPLICATION__PERIOD_S": "1"}
        env["DEPOT_COORDINATOR__DRAIN_TIMEOUT_S"] = "0"
        coordinator = stack.enter_context(RunningCoordinator(tmp_path / "c", env=env))
        sleds = []
        for number in range(2):
            env = {
                "SLED_AGENT__SLED_ID": f"s{number}",
                "SLED_AGENT__STORAGE__DELETE_GRACE": "0s",
                "SLED_AGENT__STORAGE__DEVICE_WORKERS": "thread",
                "SLED_AGENT__COORDINATOR__URLS": coordinator.url,
            }
            sleds.append(stack.enter_context(RunningAgent(tmp_path / f"s{number}", env=env)))
        fleet = Fleet(coordinator, sleds)
        until(lambda: len(json.loads(fleet.ask("sled", "ls", "--json"))["items"]) == len(sleds))
        yield fleet


def until(is_so: Any) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to that"
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_f1_every_sled_holds_the_newest_and_a_node_starts_from_any_of_them(
    fleet: Fleet, tmp_path: Path
) -> None:
    file, target = tmp_path / "state.db", tmp_path / "node.db"
    hashes, content = [], b""
    for rows in (50, 400):
        file.unlink(missing_ok=True)
        content = database(file, rows)
        said = fleet.snapshot("publish", file, "--name", "state", "--zstd", "--keep", 1)
        assert said["published"] == "true"
        fleet.ask("wait", "--timeout", TIMEOUT_S)
        hashes.append(fleet.newest())
        assert len(fleet.copies_of(hashes[-1])) == 4

    # What was kept out by the newer one leaves every disk.
    until(lambda: not fleet.copies_of(hashes[0]))
    fleet.sleds[0].kill()
    said = fleet.snapshot("download", "state", "-o", target)
    assert (said["downloaded"], said["compressed"]) == ("true", "true")
    assert target.read_bytes() == content
    assert fleet.snapshot("download", "state", "-o", target)["downloaded"] == "false"
