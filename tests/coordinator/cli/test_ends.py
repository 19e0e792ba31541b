"""How `wait` and `status` end, by what the coordinator says of its fleet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.replication_wire import ReplicationBody
from tests.coordinator.cli.conftest import Cli
from tests.coordinator.cli.test_waiting import fleet
from tests.coordinator.releases.file_server import FileServer, breaking_off, serving
from tests.system.programs import BIN
from tests.system.screens import TIMEOUT_S, read_until, terminal
from tests.unit.fake_node import FakeNode

PATH = "v1/replication"
LOST = ({"sha256": "a" * 64, "names": ("host", "phase-2")},)
HELD = fleet()
LACKING = fleet({"artifacts_present": 1, "bytes_to_go": 6}, in_flight=2, fully_replicated=1)
INCOMPLETE = fleet(state="incomplete", lost=LOST)


class Fleet:
    """A coordinator that only says how its fleet is."""

    def __init__(self, server: FileServer, documents: dict[str, bytes]) -> None:
        self.url = server.url
        self._documents = documents
        self._answers = server.answers

    def is_now(self, found: ReplicationBody) -> None:
        self._documents[PATH] = found.model_dump_json().encode()
        self._answers.clear()

    def breaks_off(self) -> None:
        self._answers[PATH] = breaking_off(b"")


@pytest.fixture
def said() -> Iterator[Fleet]:
    documents: dict[str, bytes] = {}
    with serving(documents) as server:
        yield Fleet(server, documents)


@pytest.fixture
def ask(said: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("DEPOT_COORDINATOR_URL", said.url)
    return Cli(capsys)


@pytest.mark.parametrize("goal", [(), ("--release", "1.0"), ("--generation", "7")])
def test_wait_ends_with_0_when_the_fleet_has_converged(
    said: Fleet, ask: Cli, goal: tuple[str, ...]
) -> None:
    said.is_now(HELD)
    assert ask.fine("wait", *goal, "--timeout", "0") == "converged: generation 7, 1 sled\n"
    document = ask("wait", *goal, "--json").document
    assert (document["converged"], document["left"]) == (True, [])


@pytest.mark.parametrize("goal", [(), ("--release", "1.0")])
def test_wait_ends_with_1_when_an_artifact_is_lost(
    said: Fleet, ask: Cli, goal: tuple[str, ...]
) -> None:
    said.is_now(INCOMPLETE)
    done = ask("wait", *goal)
    assert done.code == 1
    assert "release 1.0 has lost an artifact" in done.err
    done = ask("wait", *goal, "--json")
    assert (done.code, done.document["error"]["code"]) == (1, "Lost")
    assert done.document["converged"] is False


def test_status_ends_with_1_when_an_artifact_is_lost_and_names_it(said: Fleet, ask: Cli) -> None:
    said.is_now(INCOMPLETE)
    done = ask("status")
    assert done.code == 1
    assert "1 problem\n  release 1.0 has lost host (aaaaaaaaaaaa…)" in done.out
    done = ask("status", "--json")
    assert (done.code, len(done.document["problems"])) == (1, 1)
    said.is_now(LACKING)
    assert ask.fine("status").startswith("1 sled to be filled\n")
    said.is_now(HELD)
    assert ask.fine("status").startswith("OK\n")


@pytest.mark.parametrize(
    ("goal", "left"),
    [
        ((), "sled s1 lacks 2 artifacts, 6 B"),
        (("--release", "1.0"), "2 artifacts of release 1.0 not on every sled"),
        (("--generation", "9"), "the fleet is at generation 7"),
    ],
)
def test_wait_ends_with_5_when_it_takes_too_long_and_says_what_is_left(
    said: Fleet, ask: Cli, goal: tuple[str, ...], left: str
) -> None:
    said.is_now(LACKING)
    done = ask("wait", *goal, "--timeout", "0")
    assert (done.code, f"not converged in time: {left}" in done.err) == (5, True)
    document: Any = ask("wait", *goal, "--timeout", "0", "--json").document
    assert (document["error"]["code"], document["left"]) == ("TimedOut", [left])


def test_an_unknown_release_ends_with_3(said: Fleet, ask: Cli) -> None:
    said.is_now(HELD)
    done = ask("wait", "--release", "9.9")
    assert (done.code, "`depot-coordinator release ls`" in done.err) == (3, True)


def test_on_a_terminal_wait_shows_a_bar_and_leaves_a_line(said: Fleet) -> None:
    said.is_now(LACKING)
    program = str(BIN / "depot-coordinator")
    with terminal(program, "--coordinator", said.url, "wait") as (child, screen):
        shown = read_until(screen, b"0/1 sled")
        said.is_now(HELD)
        shown += read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 0
    assert b"converged: generation 7" in shown
    assert b"filling: 6 B in" in shown


AWAY = {"id": "s2", "state": "unreachable", "last_error": "connection refused"}


def test_wait_says_what_it_waits_for_besides_bytes(said: Fleet) -> None:
    said.is_now(fleet({}, AWAY))
    program = str(BIN / "depot-coordinator")
    with terminal(program, "--coordinator", said.url, "wait") as (child, screen):
        shown = read_until(screen, b"1/2 sleds")
        said.is_now(HELD)
        shown += read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 0
    assert shown.count(b"waiting for sled s2, which is unreachable: connection refused") == 1


def test_a_coordinator_that_is_away_for_a_moment_is_asked_again(said: Fleet) -> None:
    said.is_now(LACKING)
    program = str(BIN / "depot-coordinator")
    with terminal(program, "--coordinator", said.url, "wait") as (child, screen):
        read_until(screen, b"0/1 sled")
        said.breaks_off()
        read_until(screen, b"asking again")
        said.is_now(HELD)
        shown = read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 0
    assert b"converged: generation 7" in shown


def test_another_server_than_a_coordinator_is_named_as_such(ask: Cli, node: FakeNode) -> None:
    for url in (node.agent_url, node.depot_url):
        done = ask("status", "--coordinator", url)
        assert done.code == 3
        assert "perhaps no coordinator listens there" in done.err
        assert "release ls" not in done.err


def test_without_a_terminal_a_wait_tells_in_a_line_and_quietly_nothing(
    said: Fleet, ask: Cli
) -> None:
    said.is_now(LACKING)
    quiet = ask("wait", "--timeout", "0", "--quiet", "--json")
    assert "filling" not in quiet.err
    assert json.loads(quiet.out)["generation"] == 7
