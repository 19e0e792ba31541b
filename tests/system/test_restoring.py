"""The fleet's database put back while its sleds went on: what is refused, and the way out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from agent.snapshots.opening import open_archive
from agent.snapshots.publish import Publication, publish
from tests.system.agents import RunningAgent
from tests.system.coordinators import RunningCoordinator

TIMEOUT_S: Final = 300


class Fleet:
    """A coordinator and a sled."""

    def __init__(self, coordinator: RunningCoordinator, sled: RunningAgent) -> None:
        self.coordinator = coordinator
        self.sled = sled

    def ask(self, *arguments: object) -> Any:
        words = [*map(str, arguments), "--coordinator", self.coordinator.url, "--json"]
        return json.loads(self.coordinator.run(*words).stdout)

    def snapshot(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        """A verb that goes by the configuration: how it ended, and what it said."""
        archive = f"file://{self.coordinator.home}/archive"
        where = ["--config", str(self.coordinator.config_path), "--archive", archive]
        done = self.coordinator.attempt("snapshot", verb, *where, *arguments)
        return done.returncode, done.stdout, done.stderr

    def hold(self, file: Path) -> None:
        """Give the sled something to hold, which is a new generation."""
        archive = open_archive(f"fleet+{self.coordinator.url}")
        publication = Publication(path=file, name="state")
        publish(archive, publication, line=lambda _: None, progress=lambda _: None)
        self.ask("wait", "--timeout", TIMEOUT_S)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        env = {
            "DEPOT_COORDINATOR__REPLICATION__PERIOD_S": "1",
            "DEPOT_COORDINATOR__JOURNAL__CHECKPOINT_S": "1",
            "DEPOT_COORDINATOR__DRAIN_TIMEOUT_S": "0",
        }
        coordinator = stack.enter_context(RunningCoordinator(tmp_path / "c", env=env))
        env = {
            "SLED_AGENT__SLED_ID": "s0",
            "SLED_AGENT__STORAGE__DEVICE_WORKERS": "thread",
            "SLED_AGENT__COORDINATOR__URLS": coordinator.url,
        }
        sled = stack.enter_context(RunningAgent(tmp_path / "s0", env=env))
        fleet = Fleet(coordinator, sled)
        until(lambda: bool(fleet.ask("sled", "ls")["items"]))
        yield fleet


def until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s, "it never came to that"
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_f3_a_database_that_is_put_back_is_brought_above_its_sleds_and_the_journal_says_so(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"what every node starts from")
    assert fleet.snapshot("publish")[0] == 0
    fleet.hold(tmp_path / "file")
    # It sends the sled what it has signed, and with each start.
    until(lambda: fleet.ask("journal", "verify")["restores"] == 0)
    fleet.coordinator.stop()
    fleet.coordinator.start()
    until(lambda: fleet.ask("journal", "verify")["kept_elsewhere"] > 0)
    fleet.coordinator.stop()

    status, _, said = fleet.snapshot("restore", "--yes")
    assert (status, "s0 (" in said) == (3, True)
    status, said, _ = fleet.snapshot("restore", "--yes", "--behind", "--json")
    assert status == 0
    restored = json.loads(said)
    assert restored["journal"]["lost"]

    fleet.coordinator.start()
    until(lambda: fleet.ask("sled", "show", "s0")["state"] == "ahead")
    fleet.ask("generation", "advance", restored["advance_to"])
    fleet.hold(tmp_path / "file")
    assert fleet.ask("sled", "show", "s0")["state"] == "ok"
    checked = fleet.ask("journal", "verify")
    assert (checked["findings"], checked["restores"]) == ([], 1)
    assert checked["kept_elsewhere"] > 0
    assert "put back" in checked["remarks"][0]["what"]
