from __future__ import annotations

import pytest

from agent.cli.failures import Failure
from coordinator.cli.coordinators import chosen
from coordinator.replication_wire import CoordinatorBody
from tests.coordinator.cli.conftest import Cli


def one(id_: str) -> CoordinatorBody:
    return CoordinatorBody(
        id=id_, host=None, first_seen=None, last_seen=None, staged=0, only_there=0
    )


def test_the_coordinators_are_listed_with_what_is_only_there(cli: Cli) -> None:
    head, row = cli.fine("coordinator", "ls").splitlines()
    assert " ".join(head.split()) == "COORDINATOR HOST FIRST SEEN SEEN STAGED ONLY THERE"
    assert "(this one)" in row
    document = cli("coordinator", "ls", "--json").document
    assert [each["id"] for each in document["items"]] == [document["coordinator_id"]]


def test_forgetting_one_is_confirmed_and_the_one_that_answers_is_not_forgotten(cli: Cli) -> None:
    own = cli("coordinator", "ls", "--json").document["coordinator_id"]
    unsure = cli("coordinator", "forget", own)
    assert (unsure.code, "give --yes" in unsure.err) == (2, True)
    refused = cli("coordinator", "forget", own, "--yes", "--force", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (3, "CoordinatorActive")
    refused = cli("coordinator", "forget", own[:8], "--yes", "--force")
    assert "that is this coordinator" in refused.err


def test_nobody_is_asked_about_a_coordinator_that_is_none(cli: Cli) -> None:
    nobody = cli("coordinator", "forget", "nosuch")
    assert (nobody.code, "no coordinator has the id 'nosuch'" in nobody.err) == (3, True)
    assert "`depot-coordinator coordinator ls`" in nobody.err


def test_the_beginning_of_an_id_is_that_of_one_coordinator() -> None:
    first, second, other = (one(id_) for id_ in ("ab-1", "ab-12", "c-3"))
    everyone = (first, second, other)
    assert chosen(everyone, "c") is other
    assert chosen(everyone, "ab-1") is first
    with pytest.raises(Failure, match="beginning of more than one: ab-1, ab-12"):
        chosen(everyone, "ab")
    with pytest.raises(Failure, match="no coordinator has the id ''"):
        chosen(everyone, "")
