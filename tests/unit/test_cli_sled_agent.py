"""The verbs of `sled-agent` that ask a running agent, against a scripted one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli.formats import with_paths
from agent.cli.sled_agent import run, sled_agent
from tests.unit.fake_node import FakeNode

PATHS = ("/m2/a", "/m2/b")
Ask = Callable[..., Result]


def dataset(path: str, **more: Any) -> dict[str, Any]:
    return {
        "path": path,
        "dataset_id": "an-id",
        "device": "/dev/sdx",
        "mounted": True,
        "state": "healthy",
        "full": False,
        "last_error": None,
        "quota_bytes": 1 << 30,
        "used_bytes": 0,
        "reserved_bytes": 0,
        "available_bytes": 1 << 30,
        "artifacts": 0,
        **more,
    }


@pytest.fixture
def ask(node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run `sled-agent` in this process; the environment names the scripted agent."""
    monkeypatch.setenv("DEPOT_AGENT_URL", node.agent_url)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(sled_agent, arguments)

    return invoke


def tell_datasets(node: FakeNode, *found: dict[str, Any]) -> None:
    known = found or tuple(map(dataset, PATHS))
    answers = [(200, {"datasets": list(known)})] * 2  # some commands ask before and after
    node.script.setdefault("GET /datasets", []).extend(answers)


# How it ends


def test_a_usage_error_looks_like_those_of_the_other_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["datasets", "nothing"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "sled-agent: No such command 'nothing'.",
        "  `sled-agent datasets --help` shows what it takes",
    ]
    assert run(["status", "--jsn"]) == 2
    assert capsys.readouterr().err.startswith("sled-agent: No such option")
    assert run(["nothing", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 2


# Which agent is asked


def test_the_environment_names_the_agent_as_for_depot(node: FakeNode, ask: Ask) -> None:
    tell_datasets(node)
    assert ask("datasets", "list").exit_code == 0
    assert node.requests["GET /datasets"] == 1


def test_an_option_and_a_configuration_come_before_the_environment(
    node: FakeNode, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPOT_AGENT_URL", "http://127.0.0.1:1")
    assert ask("datasets", "list").exit_code == 4
    tell_datasets(node)
    assert ask("datasets", "list", "--agent", node.agent_url).exit_code == 0
    config = tmp_path / "agent.toml"
    listen = node.agent_url.removeprefix("http://")
    config.write_text(f'[agent]\nlisten = "{listen}"\n[[datasets]]\npath = "/m2/a"\n')
    tell_datasets(node)
    assert ask("datasets", "list", "--config", str(config)).exit_code == 0


def test_a_variable_that_holds_no_url_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPOT_AGENT_URL", "ftp://a")
    ended = ask("status")
    assert ended.exit_code == 2
    assert "DEPOT_AGENT_URL" in ended.stderr


@pytest.mark.parametrize(
    "verb", [["status"], ["datasets", "list"], ["scrub", "status"], ["quarantine", "ls"]]
)
def test_help_documents_the_variable(verb: list[str]) -> None:
    assert "env: DEPOT_AGENT_URL" in CliRunner().invoke(sled_agent, [*verb, "--help"]).stdout


# Datasets by path


@pytest.mark.parametrize("verb", ["release", "attach", "replace"])
def test_a_mistyped_path_is_told_with_those_that_are_configured(
    node: FakeNode, ask: Ask, verb: str
) -> None:
    node.refuse(f"POST /datasets/{verb}", 404, "NotFound", "no dataset is configured at that path")
    tell_datasets(node)
    ended = ask("datasets", verb, "m2-x")
    assert ended.exit_code == 3
    assert f"no dataset is configured at {os.path.abspath('m2-x')}" in ended.stderr
    assert "configured: /m2/a, /m2/b" in ended.stderr
    assert "sled-agent datasets list" in ended.stderr
    assert "depot ls" not in ended.stderr


def test_a_refusal_names_datasets_by_path(node: FakeNode, ask: Ask) -> None:
    node.refuse("POST /datasets/attach", 409, "DatasetRefused", "dataset 2 cannot be used: EIO")
    tell_datasets(node)
    ended = ask("datasets", "attach", "/m2/b")
    assert ended.exit_code == 3
    assert "/m2/b cannot be used: EIO" in ended.stderr
    assert "dataset 2" not in ended.stderr


def test_only_numbers_of_datasets_become_paths() -> None:
    said = "dataset 1, dataset 2 and dataset 3; dataset 12345; dataset 0f3c; 'dataset 2'"
    assert with_paths(said, PATHS) == (
        "/m2/a, /m2/b and dataset 3; dataset 12345; dataset 0f3c; '/m2/b'"
    )


@pytest.mark.parametrize(
    ("before", "said"), [("healthy", "was in use already"), ("released", "attached: ")]
)
def test_attaching_tells_whether_there_was_anything_to_do(
    node: FakeNode, ask: Ask, before: str, said: str
) -> None:
    tell_datasets(node, dataset("/m2/a"), dataset("/m2/b", state=before))
    node.script["POST /datasets/attach"] = [(200, dataset("/m2/b"))]
    ended = ask("datasets", "attach", "/m2/b")
    assert ended.exit_code == 0
    assert said in ended.stdout


# The quarantine

NAME, OTHER = "ab" * 32, "cd" * 32
LATER = "2026-01-02T03:04:05Z"


def aside(sha256: str = NAME, index: int = 0, **more: Any) -> dict[str, Any]:
    path = PATHS[index]
    name = f"{sha256}.1767322800000.mismatch"
    return {
        "id": f"{name}.{index + 1}",
        "sha256": sha256,
        "dataset": path,
        "reason": "mismatch",
        "time": LATER,
        "size_bytes": 1 << 20,
        "path": f"{path}/.sled-depot/quarantine/{name}",
        "last_copy": False,
        **more,
    }


def hold(node: FakeNode, *found: dict[str, Any], times: int = 1) -> None:
    answers = [(200, {"quarantined": list(found)})] * times
    node.script.setdefault("GET /quarantine", []).extend(answers)


@pytest.mark.parametrize("verb", ["restore", "purge"])
@pytest.mark.parametrize("id_", ["", " ", "ab", NAME[:7], "."])
def test_an_id_too_short_to_be_meant_is_refused(
    node: FakeNode, ask: Ask, verb: str, id_: str
) -> None:
    hold(node, aside())
    ended = ask("quarantine", verb, id_)
    assert ended.exit_code == 2
    assert "at least 8 characters" in ended.stderr
    assert not any(request.startswith(("DELETE", "POST")) for request in node.requests)


def ids_shown(ended: Result) -> list[str]:
    """What stands in the column of ids."""
    assert ended.exit_code == 0, ended.stderr
    rows = [line.split() for line in ended.stdout.splitlines()]
    columns = next(index for index, row in enumerate(rows) if "SINCE" in row)
    # SINCE is two words: a date and a time.
    place = rows[columns].index("ID") + 1
    return [row[place] for row in rows if "mismatch" in row]


def test_the_short_id_that_is_shown_is_one_the_other_verbs_take(node: FakeNode, ask: Ask) -> None:
    found = [aside(), aside(index=1), aside(OTHER)]
    hold(node, *found)
    shown = ids_shown(ask("quarantine", "ls"))
    assert len(set(shown)) == len(found)
    removed = []
    for id_ in shown:
        hold(node, *found)
        for each in found:
            node.script[f"DELETE /quarantine/{each['id']}"] = [(404, {"message": "no"})]
        asked = node.requests.copy()
        ask("quarantine", "purge", id_)
        removed += [name for name in node.requests - asked if name.startswith("DELETE")]
    assert sorted(removed) == sorted(f"DELETE /quarantine/{each['id']}" for each in found)


def test_the_beginning_of_an_id_is_taken_while_only_one_begins_so(node: FakeNode, ask: Ask) -> None:
    hold(node, aside(), aside(index=1), aside(OTHER), times=2)
    ended = ask("quarantine", "purge", NAME[:12])
    assert ended.exit_code == 2
    assert "2 ids begin with" in ended.stderr
    node.refuse(f"DELETE /quarantine/{aside(OTHER)['id']}", 409, "KeptInQuarantine", "the last")
    ended = ask("quarantine", "purge", OTHER[:8])
    assert ended.exit_code == 3
    assert "--force" in ended.stderr


def test_nothing_is_to_be_copied_where_a_good_copy_stands(node: FakeNode, ask: Ask) -> None:
    hold(node, aside(), times=2)
    said = f"a good copy of {NAME} stands on that dataset"
    node.refuse(f"POST /quarantine/{aside()['id']}/restore", 409, "KeptInQuarantine", said)
    ended = ask("quarantine", "restore", NAME[:8])
    assert ended.exit_code == 3
    assert "copy it from there" not in ended.stderr
    assert "quarantine purge" in ended.stderr


def test_the_listing_fits_a_terminal_of_80_columns(node: FakeNode, ask: Ask) -> None:
    far = "/a/rather/long/way/to/the/second/m2"
    other = aside(OTHER, 1, size_bytes=1023 << 20, dataset=far, last_copy=True)
    hold(node, aside(reason="unreadable"), other)
    ended = ask("quarantine", "ls")
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert far in ended.stdout


# The verification


def scrubbed(path: str) -> dict[str, Any]:
    last = {
        "requested": False,
        "started_at": LATER,
        "finished_at": LATER,
        "copies": 10,
        "copies_total": 10,
        "bytes_done": 1 << 30,
        "bytes_total": 1 << 30,
        "bad": 0,
    }
    return {
        "dataset": path,
        "state": "skipped",
        "rate_bytes_per_s": 0.0,
        "current": None,
        "last": last,
        "oldest_unverified_s": 86400.0 * 14,
        "never_verified": 0,
        "copies": 10,
        "bytes": 1 << 30,
        "verified_bytes": 1 << 30,
        "bad_found": 12345,
        "healed": 12345,
        "heal_s": 1.0,
        "last_heal_s": 1.0,
        "waiting": 0,
    }


def test_what_was_bad_in_the_last_pass_and_since_the_start_are_told_apart(
    node: FakeNode, ask: Ask
) -> None:
    found = [scrubbed("/a/rather/long/way/to/m2-a"), scrubbed("/m2/b")]
    document = {"interval_s": 86400.0, "max_bytes_per_s": 20 << 20, "paused_until": LATER}
    node.script["GET /scrub"] = [(200, {**document, "datasets": found})]
    ended = ask("scrub", "status")
    assert "BAD SINCE START" in ended.stdout
    assert "last pass 10 copies" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


@pytest.mark.parametrize("text", ["9d", "0s"])
def test_a_pause_that_may_not_be_says_what_was_found(ask: Ask, text: str) -> None:
    ended = ask("scrub", "pause", "--for", text)
    assert ended.exit_code == 2
    assert f"found '{text}'" in ended.stderr
