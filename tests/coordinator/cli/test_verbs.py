"""Verbs that had no test of their own, for people and for programs."""

from __future__ import annotations

from pathlib import Path

from tests.coordinator.cli.conftest import Cli
from tests.coordinator.releases.builder import small_release, write_zip
from tests.unit.fake_node import FakeNode


def upload(cli: Cli, tmp_path: Path) -> None:
    builder = small_release()
    (tmp_path / "root.json").write_bytes(builder.trusted)
    cli.fine("trust", "add", tmp_path / "root.json")
    cli.fine("release", "upload", write_zip(tmp_path, builder.publish()))


def test_what_was_asked_of_a_sled_is_in_the_history(
    cli: Cli, tmp_path: Path, node: FakeNode
) -> None:
    assert cli.fine("history") == "no requests\n"
    upload(cli, tmp_path)
    cli.fine("sled", "add", "s1", node.agent_url)
    assert cli.fine("activate") == "a pass begins\n"
    assert cli("activate", "--json").document == {"activated": True}
    cli.fine("wait", "--timeout", "60")
    head, *rows = cli.fine("history", "--long").splitlines()
    assert head.split() == [
        "TIME", "SLED", "OPERATION", "GENERATION", "ARTIFACT", "SOURCE", "ERROR",
    ]  # fmt: skip
    puts = [row for row in rows if " put " in row]
    assert {row.split()[5] for row in puts} == set(node.held)
    items = cli("history", "--json").document["items"]
    assert [each["operation"] for each in items][: len(rows)] == [row.split()[3] for row in rows]
    artifact = min(node.held)
    found = cli("history", "--artifact", artifact, "--sled", "s1", "--json").document["items"]
    assert {(each["artifact"], each["sled"]) for each in found} == {(artifact, "s1")}
    short = cli("history", "--artifact", artifact[:12], "--sled", "s1", "--json").document
    assert short["items"] == found
    unknown = cli("history", "--artifact", "0123456789ab")
    assert (unknown.code, "no artifact of the fleet's releases" in unknown.err) == (2, True)
    assert cli.fine("history", "--sled", "nobody") == "no requests\n"
    assert len(cli("history", "-n", "1", "--json").document["items"]) == 1
    assert cli("history", "--limit", "0").code == 2


def test_releases_are_pruned_and_the_target_stays(cli: Cli, tmp_path: Path) -> None:
    assert cli.fine("release", "prune") == "no releases\n"
    upload(cli, tmp_path)
    assert cli.fine("target", "show") == "no target release\n"
    assert cli("target", "show", "--json").document == {"version": None}
    keep = ("--keep-newest", "0", "--keep-previous-targets", "0")
    tried = cli.fine("release", "prune", *keep, "--dry-run").splitlines()
    assert tried[1].split(maxsplit=1) == ["1.0.0", "would be removed"]
    unasked = cli("release", "prune", *keep, "--json")
    assert (unasked.code, "give --yes" in unasked.err) == (2, True)
    assert "1.0.0" in cli.fine("release", "ls")
    assert cli.fine("target", "set", "1.0.0") == "the target is release 1.0.0\n"
    assert cli.fine("target", "show") == "1.0.0\n"
    kept = cli.fine("release", "prune", *keep).splitlines()
    assert kept[1].split(maxsplit=1) == ["1.0.0", "stays: the target"]
    document = cli("release", "prune", "--json").document
    assert document["removed"] == []
    assert document["kept"] == [{"version": "1.0.0", "why": "the target"}]


def test_a_quiescing_coordinator_says_what_it_still_has_to_bring_to_the_sleds(
    cli: Cli, tmp_path: Path
) -> None:
    upload(cli, tmp_path)
    said = cli.fine("quiesce")
    assert said == (
        "the coordinator takes no more uploads and ends; 2 artifacts to go to a sled first\n"
    )
    assert cli("quiesce", "--json").document == {"quiescing": True, "only_here": 2}
    assert "no more uploads are taken" in cli.fine("status")
    refused = cli("release", "upload", tmp_path / "release.zip")
    assert (refused.code, "upload to another coordinator" in refused.err) == (3, True)


def test_a_targets_version_that_is_none_is_refused(cli: Cli) -> None:
    refused = cli("target", "set", "9.9", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (3, "NotFound")
    assert "`depot-coordinator release ls`" in refused.err
