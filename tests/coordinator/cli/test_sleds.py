from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.coordinator.cli.conftest import Cli
from tests.coordinator.cli.test_verbs import upload
from tests.coordinator.running import InThread
from tests.unit.fake_node import FakeNode, dataset_document


def test_a_sled_is_added_listed_and_shown(cli: Cli) -> None:
    added = cli.fine("sled", "add", "s1", "127.0.0.1:1")
    assert added == "s1: agent http://127.0.0.1:1, depot http://127.0.0.1:12348\n"
    head, row = cli.fine("sled", "ls").splitlines()
    assert head.split() == ["SLED", "STATE", "GENERATION", "SEEN", "AGENT", "LAST", "ERROR"]
    assert row.split() == ["s1", "not", "asked", "-", "never", "http://127.0.0.1:1"]
    assert "agent       http://127.0.0.1:1" in cli.fine("sled", "show", "s1")
    assert "present     0/0 artifacts" in cli.fine("sled", "show", "s1")


def test_where_its_depot_is_taken_to_be_is_told_and_a_shared_one_is_a_problem(cli: Cli) -> None:
    """The agent's id is checked when it is asked; a depot does not say whose it is."""
    assumed = cli("sled", "add", "s1", "127.0.0.1:1")
    assert "taken to be at http://127.0.0.1:12348; if it is elsewhere" in assumed.err
    assert "taken to be" not in cli("sled", "add", "s2", "127.0.0.1:2", "--repo-depot-port", 7).err
    assert "one depot" not in cli.fine("status")
    cli.fine("sled", "add", "s2", "127.0.0.1:2")
    said = cli.fine("status")
    assert "sleds s1, s2 are said to have one depot, http://127.0.0.1:12348" in said


def test_json_and_the_coordinator_may_stand_before_or_after_the_verb(
    cli: Cli, server: InThread
) -> None:
    cli.fine("sled", "add", "s1", "h:1")
    places = (
        ("--json", "--coordinator", server.url, "sled", "ls"),
        ("sled", "--json", "ls", "--coordinator", server.url),
        ("sled", "ls", "--coordinator", server.url, "--json"),
    )
    assert all(cli(*place).document["items"][0]["id"] == "s1" for place in places)


def test_a_refusal_ends_with_3_and_says_what_to_do(cli: Cli) -> None:
    cli.fine("sled", "add", "s1", "127.0.0.1:9")
    unasked = cli("sled", "expunge", "s1", "--json")
    assert (unasked.code, "give --yes" in unasked.err) == (2, True)
    assert "s1 is expunged" in cli.fine("sled", "expunge", "s1", "--yes")
    refused = cli("sled", "add", "s1", "127.0.0.1:9", "--json")
    assert refused.code == 3
    assert "`depot-coordinator sled restore ID`" in refused.err
    assert refused.document["error"]["code"] == "SledExpunged"
    assert cli.fine("sled", "restore", "s1") == "s1 is in service\n"


def test_a_reset_is_confirmed(cli: Cli, node: FakeNode) -> None:
    node.config = (9, [])
    node.script["POST /artifacts-config/reset"] = [(204, {})]
    cli.fine("sled", "add", "s1", node.agent_url)
    refused = cli("sled", "reset", "s1")
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    assert node.requests["POST /artifacts-config/reset"] == 0
    refused = cli("sled", "reset", "s1", "--yes", "--generation", "8")
    assert (refused.code, "is at generation 9, not 8" in refused.err) == (3, True)
    assert node.requests["POST /artifacts-config/reset"] == 0
    assert cli.fine("sled", "reset", "s1", "--yes") == "s1 forgot generation 9\n"


@pytest.mark.parametrize("verb", ["expunge", "rm", "reset"])
def test_nobody_is_asked_about_a_sled_that_is_none(cli: Cli, verb: str) -> None:
    done = cli("sled", verb, "nosuch")
    assert (done.code, "no sled has the id 'nosuch'" in done.err) == (3, True)
    assert "give --yes" not in done.err


def test_a_sled_that_is_well_is_reset_by_force_only(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [])
    node.script["POST /artifacts-config/reset"] = [(204, {})]
    cli.fine("sled", "add", "s1", node.agent_url)
    cli.fine("activate")
    cli.fine("wait", "--timeout", "60")
    refused = cli("sled", "reset", "s1", "--yes", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (3, "SledIsWell")
    assert "--force" in refused.err
    assert node.requests["POST /artifacts-config/reset"] == 0
    assert "s1 forgot generation" in cli.fine("sled", "reset", "s1", "--yes", "--force")


def test_an_expunged_sled_is_removed_when_that_is_confirmed(cli: Cli) -> None:
    cli.fine("sled", "add", "s1", "127.0.0.1:9")
    assert "`depot-coordinator sled expunge ID`" in cli("sled", "rm", "s1", "--yes").err
    cli.fine("sled", "expunge", "s1", "--yes")
    assert cli("sled", "rm", "s1").code == 2
    assert cli.fine("sled", "rm", "s1", "--yes") == "s1 is forgotten\n"
    assert cli.fine("sled", "ls") == "no sleds\n"


def test_a_dataset_that_is_out_shows_in_every_list_of_sleds(
    cli: Cli, node: FakeNode, tmp_path: Path
) -> None:
    out = dataset_document("/c", state="missing", last_error="no such directory")
    node.status = {"datasets": [dataset_document("/a"), dataset_document("/b"), out]}
    upload(cli, tmp_path)
    cli.fine("sled", "add", "s1", node.agent_url)
    cli.fine("activate")
    cli.fine("wait", "--timeout", "60")
    deadline_s = time.monotonic() + 60
    while "/c is missing" not in cli.fine("status"):  # the pass after the one that filled it
        assert time.monotonic() < deadline_s
    for shown in (cli.fine("sled", "ls"), cli.fine("status"), cli.fine("sled", "show", "s1")):
        assert "ok, 1 dataset out" in shown
    assert "problem     dataset /c is missing (no such directory)" in shown


def test_a_coordinator_that_is_not_there_ends_with_4(cli: Cli) -> None:
    done = cli("sled", "ls", "--coordinator", "127.0.0.1:9")
    assert done.code == 4
    assert "--coordinator URL or DEPOT_COORDINATOR_URL" in done.err


def test_the_generation_is_shown_and_advanced(cli: Cli) -> None:
    before = int(cli.fine("generation", "show"))
    assert cli.fine("generation", "advance", before + 3).startswith(f"generation {before + 3};")
    assert cli("generation", "advance", before).code == 3
    assert cli("generation", "show", "--json").document == {"generation": before + 3}


def test_a_verb_that_is_none_is_a_usage_error(cli: Cli) -> None:
    done = cli("--json", "sledge")
    assert (done.code, done.document["error"]["exit_code"]) == (2, 2)
    assert done.err.startswith("depot-coordinator: ")
