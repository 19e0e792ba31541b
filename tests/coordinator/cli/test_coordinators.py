from __future__ import annotations

from tests.coordinator.cli.conftest import Cli


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
    nobody = cli("coordinator", "forget", "0" * 8, "--yes")
    assert (nobody.code, "no coordinator has the id" in nobody.err) == (3, True)
