"""What happens in a fleet of real processes is in its journal: all of it, and once."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ondisk
from tests.coordinator.releases.builder import ReleaseBuilder, write_zip
from tests.system.agents import RunningAgent
from tests.system.asking import ask, await_status, put_config
from tests.system.coordinators import RunningCoordinator
from tests.system.programs import BIN

WITHIN_S: Final = 120.0
CONTENT: Final = b"of which one byte rots\n" * 1000
SHA256: Final = ondisk.sha256(CONTENT)
Event = tuple[str, int, str]
"""The epoch and number of what a sled says that happened there, and its kind."""


@dataclass
class Fleet:
    coordinator: RunningCoordinator
    agents: list[RunningAgent]

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                BIN / "depot-coordinator",
                "--coordinator",
                self.coordinator.url,
                *map(str, arguments),
            ],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def fine(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def entries(self, query: str) -> list[dict[str, Any]]:
        """In the journal's order."""
        answer = ask(self.coordinator.url, f"/v1/journal?limit=1000&{query}")
        assert answer.status == 200, answer
        items: list[dict[str, Any]] = answer.body["items"]
        return items


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    env = {
        "DEPOT_COORDINATOR__REPLICATION__PERIOD_S": "1",
        "DEPOT_COORDINATOR__JOURNAL__GATHER_S": "0.2",
        "DEPOT_COORDINATOR__JOURNAL__CHECKPOINT_S": "0.2",
    }
    with RunningCoordinator(tmp_path / "coordinator", env=env) as coordinator:
        agents = [
            RunningAgent(
                tmp_path / name,
                env={
                    "SLED_AGENT__SLED_ID": name,
                    "SLED_AGENT__COORDINATOR__URLS": coordinator.url,
                    "SLED_AGENT__STORAGE__DELETE_GRACE": "0s",
                    "SLED_AGENT__STORAGE__QUOTA": "50MiB",
                },
            )
            for name in ("s1", "s2")
        ]
        try:
            for agent in agents:
                agent.start()
            yield Fleet(coordinator, agents)
        finally:
            for agent in agents:
                agent.close()


def upload(fleet: Fleet, tmp_path: Path) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    builder = ReleaseBuilder(expires=until)
    builder.add("one.bin", CONTENT)
    builder.document([{"name": "one", "version": "1", "kind": "host", "target": "one.bin"}])
    (tmp_path / "root.json").write_bytes(builder.trusted)
    fleet.fine("trust", "add", tmp_path / "root.json")
    fleet.fine("release", "upload", write_zip(tmp_path, builder.publish()))


def rot(agent: RunningAgent) -> None:
    """Change one byte of a copy, and have the sled find that."""
    path = agent.datasets[0] / SHA256
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"X")
    path.chmod(0o444)
    assert ask(agent.agent_url, "/scrub", "POST").status < 300


def own_events(agent: RunningAgent) -> list[Event]:
    """What a sled says itself."""
    found = ask(agent.agent_url, "/events").body
    return [(found["epoch"], each["sequence"], each["kind"]) for each in found["events"]]


def await_event(agent: RunningAgent, kind: str) -> None:
    def has(_: dict[str, Any]) -> bool:
        return any(each[2] == kind for each in own_events(agent))

    await_status(agent, has, within_s=WITHIN_S)


def await_checkpoints(agent: RunningAgent) -> list[str]:
    """What a sled keeps of the journal, once it was sent anything."""

    def notes() -> list[str]:
        found: list[str] = ask(agent.agent_url, "/checkpoints").body["notes"]
        return found

    await_status(agent, lambda _: bool(notes()), within_s=WITHIN_S)
    return notes()


def told_of(fleet: Fleet, sled_id: str) -> list[Event]:
    """What the journal says of a sled."""
    entries = fleet.entries(f"sled={sled_id}&kind=sled.")
    contents = [json.loads(entry["content"]) for entry in entries]
    return [
        (each["source"]["epoch"], each["source"]["sequence"], each["kind"].removeprefix("sled."))
        for each in contents
    ]


def await_told(fleet: Fleet, agent: RunningAgent, sled_id: str) -> list[Event]:
    """What the journal has once it has the last thing that the sled said."""
    last, deadline_s = own_events(agent)[-1], time.monotonic() + WITHIN_S
    while (told := told_of(fleet, sled_id))[-1:] < [last]:
        assert time.monotonic() < deadline_s, (last, told)
    return told


@pytest.mark.timeout(400)  # a dozen processes, one after the other
def test_one_artifact_from_its_upload_to_its_deletion_over_the_whole_fleet(
    fleet: Fleet, tmp_path: Path
) -> None:
    s1, s2 = fleet.agents
    upload(fleet, tmp_path)
    fleet.fine("wait", "--timeout", int(WITHIN_S))
    assert put_config(s1, 0, SHA256).error_code == "CONFIG_GENERATION"
    # What happens while no coordinator is there to ask is told later.
    fleet.coordinator.kill()
    rot(s2)
    await_event(s2, "quarantined")
    await_event(s2, "healed")
    s2.kill()
    s2.start()
    fleet.coordinator.start()
    fleet.fine("release", "rm", "1.0.0", "--yes")
    for agent in fleet.agents:
        await_event(agent, "deleted")

    for agent, sled_id in zip(fleet.agents, ("s1", "s2"), strict=True):
        told = await_told(fleet, agent, sled_id)
        assert told == own_events(agent)[: len(told)]
    found = fleet.fine("journal", "search", "--artifact", SHA256[:8], "--json")
    timeline = json.loads(found)["items"]
    kinds = Counter(each["kind"] for each in timeline)
    del kinds["sled.copy_failed"]  # it was asked for before its source had all of it
    assert kinds == {
        "fleet.release_uploaded": 1,
        "sled.put": 1,
        "sled.copied": 1,
        "sled.quarantined": 1,
        "sled.healed": 1,
        "fleet.release_removed": 1,
        "sled.deleted": 2,
    }
    times = [datetime.fromisoformat(each["time"]) for each in timeline]
    assert times == sorted(times)
    of_s1 = {each["kind"] for each in fleet.entries("sled=s1")}
    assert {"fleet.sled_added", "sled.config_changed", "sled.config_refused"} <= of_s1
    # Each sled was sent how the journal is, and what it keeps is of this one.
    kept = [note for agent in fleet.agents for note in await_checkpoints(agent)]
    checked = json.loads(fleet.fine("journal", "verify", "--json"))
    assert checked["findings"] == []
    assert checked["kept_elsewhere"] >= len(kept) >= len(fleet.agents)
