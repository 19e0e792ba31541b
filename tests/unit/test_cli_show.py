"""Verbs that show or change what a sled knows: config, ls, pin, events, status, verify."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import Cli
from tests.unit.fake_node import TIME, FakeNode
from tests.unit.fake_node import dataset_document as dataset
from tests.unit.fake_node import status_document as status

ONE, TWO, THREE = (f"{digit}" * 64 for digit in "123")


# ---- config


def test_config_get_is_what_config_set_reads(cli: Cli, node: FakeNode, tmp_path: Path) -> None:
    node.config = (4, [TWO, ONE])
    got = cli("config", "get", "--json")
    assert got.json == {"generation": 4, "artifacts": [ONE, TWO]}
    (tmp_path / "config.json").write_text(got.out)
    node.config = (3, [THREE])
    assert cli("config", "set", tmp_path / "config.json").status == 0
    assert node.config == (4, [ONE, TWO])


def test_config_get_shows_whole_hashes(cli: Cli, node: FakeNode) -> None:
    node.config = (4, [TWO, ONE])
    assert cli("config", "get").out.splitlines() == ["generation 4: 2 artifacts", ONE, TWO]


def test_config_set_shows_what_it_changes(cli: Cli, node: FakeNode) -> None:
    node.config = (4, [ONE, TWO])
    ended = cli("config", "set", "--generation", 5, TWO.upper(), THREE)
    assert node.config == (5, [TWO, THREE])
    assert ended.out.splitlines() == [
        "generation 4 -> generation 5: 1 added, 1 dropped, 1 kept",
        f"+ {THREE}",
        f"- {ONE}",
    ]


def test_a_dry_run_changes_nothing(cli: Cli, node: FakeNode) -> None:
    node.config = (4, [ONE])
    ended = cli("config", "set", "--dry-run", "--generation", 5, TWO)
    assert node.config == (4, [ONE])
    assert f"+ {TWO}" in ended.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--generation", 3, TWO], "CONFIG_GENERATION"),
        (["--generation", 4, TWO], "CONFIG_GENERATION"),
        (["--generation", 5, TWO], "ArtifactInUse"),
    ],
)
def test_a_dry_run_foresees_a_refusal(
    cli: Cli, node: FakeNode, arguments: list[object], code: str
) -> None:
    node.config, node.pins = (4, [ONE]), {"boot": [ONE]}
    ended = cli("--json", "config", "set", "--dry-run", *arguments)
    assert ended.status == 3
    assert ended.json["error"]["code"] == code
    assert ended.json["dropped"] == [ONE]
    assert node.config == (4, [ONE])


def test_a_dry_run_of_what_is_there_is_fine(cli: Cli, node: FakeNode) -> None:
    node.config = (4, [ONE])
    assert cli("config", "set", "--dry-run", "--generation", 4, ONE).status == 0


def test_dropping_most_artifacts_is_called_out(cli: Cli, node: FakeNode) -> None:
    node.config = (4, [ONE, TWO])
    assert "storage.delete_grace" in cli("config", "set", "--generation", 5, "--empty").err


def not_known(node: FakeNode, ledger: str, accepted: int | None) -> None:
    node.refuse("GET /artifacts-config", 503, "LedgerUnknown", "generation 5 is nowhere")
    node.status = status(dataset("/m2/a"), ledger=ledger, generation=accepted)


def test_a_config_is_sent_although_the_current_one_is_not_known(cli: Cli, node: FakeNode) -> None:
    not_known(node, "behind", 5)
    ended = cli("--json", "config", "set", "--generation", 6, ONE)
    assert ended.status == 0
    assert node.config == (6, [ONE])
    assert ended.json["generation"] == 6
    assert [ended.json[key] for key in ("previous_generation", "added", "dropped")] == [None] * 3
    assert "cannot be shown: generation 5 is nowhere" in ended.err


@pytest.mark.parametrize(
    ("ledger", "accepted", "generation", "code"),
    [
        ("behind", 5, 6, None),
        ("behind", 5, 5, None),  # what was accepted may come again
        ("behind", 5, 4, "CONFIG_GENERATION"),
        ("conflicted", 5, 6, None),
        ("conflicted", 5, 5, "CONFIG_GENERATION"),
        ("unknown", None, 6, "LedgerUnknown"),
    ],
)
def test_a_dry_run_foresees_a_refusal_also_where_the_current_config_is_not_known(
    cli: Cli, node: FakeNode, ledger: str, accepted: int | None, generation: int, code: str | None
) -> None:
    not_known(node, ledger, accepted)
    ended = cli("--json", "config", "set", "--dry-run", "--generation", generation, ONE)
    assert node.config is None
    assert ended.status == (3 if code else 0)
    assert ended.json.get("error", {}).get("code") == code


def test_a_pin_is_seen_where_the_current_config_is_not_known(cli: Cli, node: FakeNode) -> None:
    not_known(node, "behind", 5)
    node.pins = {"boot": [TWO]}
    ended = cli("--json", "config", "set", "--dry-run", "--generation", 6, ONE)
    assert ended.json["error"]["code"] == "ArtifactInUse"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a", "b"],
        ["--generation", "5"],
        ["--generation", "5", "--empty", ONE],
        ["--generation", "5", "xyz"],
        ["--empty"],
        ["--generation", str(2**63), ONE],
        ["no-such-file"],
    ],
)
def test_a_config_that_cannot_be_meant_is_a_usage_error(
    cli: Cli, node: FakeNode, arguments: list[str]
) -> None:
    assert cli("config", "set", *arguments).status == 2
    assert node.requests["PUT /artifacts-config"] == 0


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "the document"),
        ('{"generation": "1", "artifacts": []}', "generation"),
        ('{"generation": 1, "artifacts": ["xyz"]}', "artifacts.0"),
        ('{"generation": 1, "artifacts": [], "more": 1}', "more"),
    ],
)
def test_a_wrong_config_file_is_a_usage_error_that_names_the_field(
    cli: Cli, tmp_path: Path, text: str, where: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    ended = cli("config", "set", tmp_path / "config.json")
    assert ended.status == 2
    assert f": {where}: " in ended.err


def test_a_stale_config_is_refused_with_a_way_out(cli: Cli, node: FakeNode) -> None:
    node.config = (9, [ONE])
    ended = cli("--json", "config", "set", "--generation", 5, TWO)
    assert ended.status == 3
    assert ended.json["error"]["code"] == "CONFIG_GENERATION"
    assert "depot config get" in ended.json["error"]["hint"]


# ---- ls


def test_ls_shows_whole_hashes_and_what_is_missing(cli: Cli, node: FakeNode) -> None:
    held = node.hold(b"x")
    node.config = (1, [held, ONE])
    ended = cli("ls")
    rows = dict(line.split() for line in ended.out.splitlines())
    assert rows == {"SHA256": "COPIES", held: "2", ONE: "missing"}
    assert "2 artifacts, 1 missing" in ended.err
    document = cli("--json", "ls").json
    assert document == {"generation": 1, "list": {held: 2}, "missing": [ONE], "lost": []}


def test_ls_says_lost_where_the_status_does(cli: Cli, node: FakeNode) -> None:
    held = node.hold(b"x")
    node.config = (1, [held, ONE, TWO])
    node.status = status(dataset("/m2/a"), healing=healing(ONE))
    ended = cli("ls")
    rows = dict(line.split() for line in ended.out.splitlines())
    assert rows == {"SHA256": "COPIES", held: "2", ONE: "lost", TWO: "missing"}
    assert "3 artifacts, 2 missing, 1 of them lost" in ended.err
    document = cli("--json", "ls").json
    assert document["missing"] == sorted([ONE, TWO])
    assert document["lost"] == [ONE]


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ([], "  missing: no dataset that is here has it"),
        ([ONE], "  lost: no good copy is left"),
    ],
)
def test_ls_of_what_the_config_names_and_no_dataset_has_says_so(
    cli: Cli, node: FakeNode, lost: list[str], said: str
) -> None:
    held = node.hold(b"x")
    node.config = (1, [held, ONE])
    node.status = status(dataset("/m2/a"), healing=healing(*lost))
    node.refuse(f"GET /artifacts/{ONE}", 404, "NotFound", "not here")
    ended = cli("ls", ONE, held)
    assert ended.status == 0
    assert ended.out.splitlines()[:3] == [ONE, said, held]
    node.refuse(f"GET /artifacts/{ONE}", 404, "NotFound", "not here")
    assert cli("--json", "ls", ONE).json["artifacts"] == [{"sha256": ONE, "copies": []}]


def test_ls_of_what_nobody_named_is_refused(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [TWO])
    node.refuse(f"GET /artifacts/{ONE}", 404, "NotFound", "not here")
    ended = cli("ls", ONE)
    assert ended.status == 3
    assert "not here" in ended.err


def test_ls_asks_for_no_status_where_nothing_is_missing(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [node.hold(b"x")])
    assert cli("ls").status == 0
    assert cli("ls", node.config[1][0]).status == 0
    assert node.requests["GET /status"] == 0


def test_ls_finds_what_is_lost_by_its_first_characters(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    node.status = status(dataset("/m2/a"), healing=healing(ONE))
    node.damaged = {ONE}
    lines = cli("ls", ONE[:8]).out.splitlines()
    assert lines[:2] == [ONE, "  lost: no good copy is left"]
    assert lines[3].split()[0] == "damaged"


def test_ls_of_one_artifact_shows_where_it_is(cli: Cli, node: FakeNode) -> None:
    held = node.hold(b"x" * 2048)
    node.config = (1, [held])
    lines = cli("ls", held[:10]).out.splitlines()
    assert lines[0] == held
    assert "2.0 KiB" in lines[2]
    assert lines[2].endswith("/m2/a")
    document = cli("--json", "ls", held).json
    assert document["artifacts"][0]["copies"][0]["path"] == f"/m2/a/{held}"


# ---- pins


def test_pins_are_set_listed_and_removed(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    assert cli("pin", "set", "boot", ONE[:8], TWO).status == 0
    assert node.pins == {"boot": [ONE, TWO]}
    assert cli("pin", "ls").out.splitlines() == ["boot: 2 artifacts", f"  {ONE}", f"  {TWO}"]
    assert cli("--json", "pin", "ls").json == {"pins": {"boot": [ONE, TWO]}}
    assert cli("pin", "rm", "boot").status == 0
    assert cli("pin", "ls").out == "no pins\n"


def test_a_pin_that_is_not_there_is_refused(cli: Cli) -> None:
    ended = cli("pin", "rm", "boot")
    assert ended.status == 3
    assert "no such pin" in ended.err


@pytest.mark.parametrize("name", ["", "..", "../artifacts-config", "a/b", "-", "a" * 129])
def test_a_pin_name_that_could_be_another_path_is_a_usage_error(
    cli: Cli, node: FakeNode, name: str
) -> None:
    assert cli("pin", "rm", "--", name).status == 2
    assert not node.requests


# ---- events


def event(sequence: int, kind: str, **fields: object) -> dict[str, Any]:
    return {"sequence": sequence, "time": TIME, "kind": kind, **fields}


def page(*events: dict[str, Any], epoch: str = "e1", oldest: int = 1, latest: int = 0) -> Any:
    return {"epoch": epoch, "oldest": oldest, "latest": latest, "events": list(events)}


def test_events_are_shown_oldest_first_over_all_pages(cli: Cli, node: FakeNode) -> None:
    node.events = [
        page(event(1, "put", sha256=ONE), latest=2),
        page(event(2, "dataset_lost", dataset="/m2/b", reason="no marker"), latest=2),
    ]
    first, second = cli("events").out.splitlines()
    assert "#1 " in first
    assert "sha256=111111111111…" in first
    assert "dataset_lost" in second
    assert "reason='no marker'" in second


def test_events_in_json_are_one_document(cli: Cli, node: FakeNode) -> None:
    node.events = [page(event(7, "put", sha256=ONE), oldest=7, latest=7)]
    document = cli("--json", "events", "--after", 6).json
    assert document["latest"] == 7
    assert document["events"][0]["sha256"] == ONE


def test_events_that_are_no_longer_kept_are_told(cli: Cli, node: FakeNode) -> None:
    node.events = [page(event(7, "put"), oldest=7, latest=7)]
    assert "events 3 to 6 are no longer kept" in cli("events", "--after", 2).err


def test_follow_writes_one_json_line_for_each_event(cli: Cli, node: FakeNode) -> None:
    node.events = [page(event(1, "put"), latest=1), page(event(2, "reset"), latest=2)]
    ended = cli("--json", "events", "--follow")
    assert ended.status == 4
    *events, last = map(json.loads, ended.out.splitlines())
    assert [found["kind"] for found in events] == ["put", "reset"]
    assert last["error"]["exit_code"] == 4


def test_follow_starts_over_when_the_log_began_anew(cli: Cli, node: FakeNode) -> None:
    node.events = [
        page(event(8, "put"), oldest=8, latest=8),
        page(epoch="e2", oldest=1, latest=1),
        page(event(1, "reset"), epoch="e2", latest=1),
    ]
    ended = cli("events", "--follow", "--after", 7)
    assert [line.split()[3] for line in ended.out.splitlines()] == ["put", "reset"]
    assert "began anew" in ended.err


# ---- status


def healing(*lost: str) -> dict[str, Any]:
    return {
        "todo": len(lost),
        "todo_bytes": 0,
        "healed": 0,
        "heal_seconds": 0.0,
        "failed": len(lost),
        "current": None,
        "lost": {"count": len(lost), "artifacts": list(lost)},
    }


def test_a_sled_that_is_well_is_ok_in_its_first_line(cli: Cli, node: FakeNode) -> None:
    node.status = status(dataset("/m2/a"), dataset("/m2/b"))
    lines = cli("status").out.splitlines()
    assert lines[0] == "OK"
    assert "config   generation 5, epoch 1, ledger clear" in lines
    assert lines[-1].split() == [
        "healthy",
        "3.0",
        "MiB",
        "20.0",
        "GiB",
        "17.0",
        "GiB",
        "15",
        "/m2/b",
    ]


def test_what_waits_is_told_beside_the_config(cli: Cli, node: FakeNode) -> None:
    node.status = status(
        dataset("/m2/a"),
        missing={"count": 5, "artifacts": [ONE]},
        deletions_held_until="2026-11-21T12:00:00Z",
    )
    lines = cli("status").out.splitlines()
    assert lines[0] == "OK"
    assert "missing  5 artifacts on no dataset yet" in lines
    assert any(line.startswith("grace    what the config dropped is kept until ") for line in lines)


def test_what_is_lost_is_not_said_to_be_awaited(cli: Cli, node: FakeNode) -> None:
    node.status = status(
        dataset("/m2/a"), missing={"count": 1, "artifacts": [ONE]}, healing=healing(ONE)
    )
    ended = cli("status")
    assert "1 artifact lost" in ended.out
    assert "on no dataset yet" not in ended.out


def test_what_is_wrong_comes_first_with_the_reason(cli: Cli, node: FakeNode) -> None:
    missing = dataset("/m2/b", state="missing", last_error="no marker file")
    node.status = status(
        dataset("/m2/a", full=True),
        missing,
        ledger="behind",
        under_replicated={"count": 15, "artifacts": [ONE]},
        warnings=["two datasets are on one device"],
    )
    ended = cli("status")
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert lines[0] == "4 problems, 1 warning"
    assert lines[1].startswith("  dataset /m2/a is full: 3.0 MiB of 20.0 GiB used")
    assert lines[2] == "  dataset /m2/b is missing: no marker file"
    assert lines[5] == "  two datasets are on one device"
    assert "\x1b" not in ended.out


def test_a_pause_of_the_verification_is_told_with_its_end(cli: Cli, node: FakeNode) -> None:
    until = datetime(2026, 11, 21, 12, tzinfo=UTC)
    scrub: dict[str, Any] = {
        "interval_s": 86400.0,
        "max_bytes_per_s": 1,
        "paused_until": None,
        "datasets": [],
    }
    node.status = status(dataset("/m2/a"), scrub=scrub)
    assert "paused" not in cli("status").out
    node.status = status(
        dataset("/m2/a"), scrub={**scrub, "paused_until": until.isoformat().replace("+00:00", "Z")}
    )
    told = until.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    assert f"scrub    paused until {told} (`sled-agent scrub resume`)\n" in cli("status").out


def test_a_warning_names_datasets_by_path(cli: Cli, node: FakeNode) -> None:
    node.status = status(
        dataset("/m2/a"), dataset("/m2/b"), warnings=["healing failed: dataset 2: EIO"]
    )
    assert "  healing failed: /m2/b: EIO\n" in cli("status").out


def test_a_reason_and_a_warning_are_not_said_twice(cli: Cli, node: FakeNode) -> None:
    gone = "/m2/a: No such file or directory"
    marker = "/m2/b has no marker"
    node.status = status(
        dataset("/m2/a", state="missing", last_error=gone),
        dataset("/m2/b", state="missing", last_error=marker),
        warnings=[f"dataset /m2/a is missing: {gone}", "a dataset that is away may know more"],
    )
    lines = cli("status").out.splitlines()
    assert lines[:5] == [
        "2 problems, 1 warning",
        "  dataset /m2/a is missing: No such file or directory",
        "  dataset /m2/b is missing: it has no marker",
        "  a dataset that is away may know more",
        "",
    ]


def test_of_a_missing_dataset_only_the_quota_is_known(cli: Cli, node: FakeNode) -> None:
    node.status = status(dataset("/m2/a"), dataset("/m2/b", state="missing"))
    row = cli("status").out.splitlines()[-1].split()
    assert row == ["missing", "-", "20.0", "GiB", "-", "-", "/m2/b"]


def test_status_in_json_is_the_servers_document_with_the_problems(cli: Cli, node: FakeNode) -> None:
    node.status = status(dataset("/m2/a", state="suspect", last_error="EIO"))
    document = cli("--json", "status").json
    assert document["datasets"][0]["state"] == "suspect"
    assert document["problems"] == ["dataset /m2/a is suspect: EIO"]


def test_a_message_from_the_server_cannot_colour_the_terminal(cli: Cli, node: FakeNode) -> None:
    node.status = status(dataset("/m2/a", state="suspect", last_error="\x1b[2Jgone"))
    assert "\x1b" not in cli("status").out


# ---- verify


def test_a_file_is_compared_with_its_name(cli: Cli, node: FakeNode, tmp_path: Path) -> None:
    right, wrong = tmp_path / node.hold(b"right"), tmp_path / ONE
    right.write_bytes(b"right")
    wrong.write_bytes(b"wrong")
    assert cli("verify", right).status == 0
    ended = cli("verify", right, wrong)
    assert ended.status == 1
    assert [line.split()[0] for line in ended.out.splitlines()] == ["OK", "WRONG", "expected"]
    assert not node.requests


def test_a_file_is_compared_with_the_hash_that_was_given(
    cli: Cli, node: FakeNode, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    assert cli("verify", "--sha256", node.hold(b"right").upper(), path).status == 0
    ended = cli("--json", "verify", "--sha256", ONE, path)
    assert ended.status == 1
    assert ended.json["ok"] is False
    assert ended.json["files"][0]["expected"] == ONE


def test_any_other_file_has_to_be_what_the_sled_holds(
    cli: Cli, node: FakeNode, tmp_path: Path
) -> None:
    held, other = tmp_path / "held", tmp_path / "other"
    held.write_bytes(b"held")
    other.write_bytes(b"other")
    node.config = (1, [node.hold(b"held")])
    assert cli("verify", held).status == 0
    ended = cli("verify", held, other)
    assert ended.status == 1
    assert "the sled holds no artifact with these bytes" in ended.out


def test_one_hash_is_for_one_file(cli: Cli) -> None:
    assert cli("verify", "--sha256", ONE, __file__, __file__).status == 2
