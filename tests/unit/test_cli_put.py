from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.conftest import Cli
from tests.unit.fake_node import FakeNode, dataset_document, status_document


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"file-{index}" for index in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(bytes([index]) * 1000)
    return paths


def hashes(node: FakeNode, files: list[Path]) -> list[str]:
    """Their names, without leaving them on the node."""
    found = [node.hold(path.read_bytes()) for path in files]
    node.held.clear()
    return found


def test_put_sends_files_under_the_current_generation(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    names = hashes(node, files)
    node.config = (7, names)
    ended = cli("--json", "put", *files)
    assert ended.status == 0
    assert ended.json["generation"] == 7
    assert [(file["sha256"], file["result"]) for file in ended.json["files"]] == [
        (name, "stored") for name in names
    ]
    assert sorted(node.held) == sorted(names)


def test_put_add_makes_one_config_change_for_all_files(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    other = "f" * 64
    node.config = (4, [other])
    ended = cli("put", "--add", *files)
    assert ended.status == 0
    assert node.config == (5, sorted([other, *hashes(node, files)]))
    assert node.requests["PUT /artifacts-config"] == 1
    assert "3 hashes added to the config, now generation 5" in ended.err


def test_put_add_starts_at_generation_one_on_a_sled_without_a_config(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    assert cli("put", "--add", *files).status == 0
    assert node.config == (1, sorted(hashes(node, files)))


def test_put_add_of_what_is_in_the_config_changes_nothing(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.config = (4, hashes(node, files))
    assert cli("put", "--add", *files).status == 0
    assert node.config[0] == 4
    assert node.requests["PUT /artifacts-config"] == 0


REGISTRATION = {
    "name": "registration",
    "failing": False,
    "failures": 0,
    "last_error": None,
    "last_failed_at": None,
}


def test_put_add_on_a_sled_that_a_coordinator_leads_warns_that_it_is_ahead_now(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.status = status_document(duties=[REGISTRATION])
    node.config = (4, [])
    ended = cli("--json", "put", "--add", *files)
    assert ended.status == 0
    (warning,) = ended.json["warnings"]
    assert "depot-coordinator sled reset" in warning
    assert "registers with a coordinator" in ended.err


def test_put_add_that_changes_nothing_or_on_a_sled_of_its_own_warns_of_nothing(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.status = status_document()
    assert cli("--json", "put", "--add", *files).json["warnings"] == []
    node.status = status_document(duties=[REGISTRATION])
    assert cli("--json", "put", "--add", *files).json["warnings"] == []


def test_put_add_tries_once_more_when_somebody_moved_the_generation(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    other = "f" * 64
    node.config = (4, [])

    def meanwhile(request: str) -> None:
        if request == "PUT /artifacts-config" and node.requests[request] == 1:
            node.config = (9, [other])

    node.before = meanwhile
    ended = cli("put", "--add", files[0])
    assert ended.status == 0
    assert node.config == (10, sorted([other, *hashes(node, files[:1])]))


def test_put_add_gives_up_when_the_generation_moves_twice(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    for _ in range(2):
        node.refuse("PUT /artifacts-config", 409, "CONFIG_GENERATION", "moved")
    ended = cli("--json", "put", "--add", files[0])
    assert ended.status == 3
    assert ended.json["error"]["code"] == "CONFIG_GENERATION"


def test_what_is_there_is_not_sent(cli: Cli, node: FakeNode, files: list[Path]) -> None:
    node.config = (1, [node.hold(path.read_bytes()) for path in files])
    ended = cli("--json", "put", *files)
    assert ended.status == 0
    assert {file["result"] for file in ended.json["files"]} == {"held"}
    assert "sending: 0 B in " in ended.err


def test_a_put_follows_a_generation_that_moves_on(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (name, *_) = names = hashes(node, files)
    node.config = (3, names)
    node.refuse(f"PUT /artifacts/{name}", 409, "ARTIFACT_GENERATION", "moved")
    assert cli("put", files[0]).status == 0


def test_a_generation_that_was_named_is_not_followed(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (name, *_) = hashes(node, files)
    node.refuse(f"PUT /artifacts/{name}", 409, "ARTIFACT_GENERATION", "moved")
    ended = cli("put", "--generation", 3, files[0])
    assert ended.status == 3
    assert node.requests["GET /artifacts-config"] == 0


def test_a_refused_file_does_not_stop_the_others(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    names = hashes(node, files)
    node.config = (3, names)
    node.refuse(f"PUT /artifacts/{names[0]}", 507, "QuotaExceeded", "full")
    ended = cli("--json", "put", *files)
    assert ended.status == 3
    assert [file["result"] for file in ended.json["files"]] == ["failed", "stored", "stored"]
    assert ended.json["error"]["code"] == "QuotaExceeded"
    assert ended.json["files"][0]["error"]["request_id"] == "r-1"
    assert "2 of 3 files stored" in ended.err


def test_the_servers_own_message_and_a_way_out_are_told(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.config = (3, [])
    (name, *_) = hashes(node, files)
    node.refuse(f"PUT /artifacts/{name}", 400, "NotInConfig", f"{name} is not in generation 3")
    ended = cli("put", files[0])
    assert ended.status == 3
    assert f"{name} is not in generation 3" in ended.err
    assert "depot put --add FILE" in ended.err
    assert "Traceback" not in ended.err


def test_bytes_that_the_server_finds_wrong_are_wrong_bytes(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (name, *_) = hashes(node, files)
    node.config = (3, [name])
    node.refuse(f"PUT /artifacts/{name}", 400, "HashMismatch")
    assert cli("put", files[0]).status == 1


def test_put_add_to_a_config_that_is_not_known_says_the_way_out(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.refuse("GET /artifacts-config", 503, "LedgerUnknown", "generation 5 is nowhere")
    ended = cli("put", "--add", *files)
    assert ended.status == 3
    assert "--add: the config to add to is not known: generation 5 is nowhere" in ended.err
    assert "depot config set --generation N" in ended.err
    assert node.requests["PUT /artifacts-config"] == 0


def test_put_without_a_config_says_what_to_do(cli: Cli, files: list[Path]) -> None:
    ended = cli("put", files[0])
    assert ended.status == 3
    assert "depot put --add FILE" in ended.err


@pytest.mark.parametrize(
    "arguments", [[], ["no-such-file"], ["/"], ["--generation", "-1", __file__]]
)
def test_a_command_line_that_cannot_be_meant_is_a_usage_error(
    cli: Cli, node: FakeNode, arguments: list[str]
) -> None:
    assert cli("put", *arguments).status == 2
    assert not node.requests


def test_add_and_a_generation_exclude_each_other(cli: Cli) -> None:
    assert cli("put", "--add", "--generation", "3", __file__).status == 2


def test_plain_lines_tell_the_progress_where_there_is_no_terminal(
    cli: Cli, files: list[Path]
) -> None:
    ended = cli("put", "--add", *files)
    assert "hashing: 2.9 KiB in " in ended.err
    assert "sending: 2.9 KiB in " in ended.err
    assert "\x1b" not in ended.err + ended.out


def test_quiet_says_nothing_on_stderr(cli: Cli, files: list[Path]) -> None:
    assert cli("put", "--add", "--quiet", *files).err == ""


def test_hashes_are_short_unless_long_is_asked_for(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (name, *_) = hashes(node, files)
    assert name not in cli("put", "--add", files[0]).out
    assert name in cli("put", "--long", files[0]).out


# ---- a sled that is not whole


def test_a_dataset_that_is_out_is_named_and_counted(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    away = dataset_document("/m2/b", state="missing", last_error="no marker file")
    node.datasets = [dataset_document("/m2/a"), away]
    ended = cli("put", "--add", *files)
    assert ended.status == 0
    assert all("stored  1 of 2" in row for row in ended.out.splitlines()[1:])
    warning = (
        "depot: warning: only 1 of 2 datasets can be written now: "
        "dataset /m2/b is missing: no marker file"
    )
    assert ended.err.count(warning) == 1
    assert node.requests["GET /datasets"] == 1


def test_a_warning_is_told_to_whoever_wants_no_notes_too(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.datasets = [dataset_document("/m2/a"), dataset_document("/m2/b", state="suspect")]
    assert "/m2/b" in cli("put", "--add", "--quiet", *files).err


def test_json_tells_how_many_datasets_are_configured_and_what_is_wrong(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.datasets = [dataset_document("/m2/a"), dataset_document("/m2/b", state="released")]
    document = cli("--json", "put", "--add", files[0]).json
    assert document["files"][0]["datasets"] == 1
    assert document["configured_datasets"] == 2
    assert "/m2/b" in document["warnings"][0]


def test_a_sled_that_is_whole_is_not_warned_of(cli: Cli, node: FakeNode, files: list[Path]) -> None:
    node.datasets = [dataset_document("/m2/a"), dataset_document("/m2/b")]
    ended = cli("--json", "put", "--add", "--quiet", *files)
    assert ended.err == ""
    assert ended.json["warnings"] == []


def test_a_sled_that_says_nothing_of_its_datasets_fails_no_put(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    node.refuse("GET /datasets", 404, "NotFound", "no such path")
    ended = cli("put", "--add", files[0])
    assert ended.status == 0
    assert "2 of 2" in ended.out


def test_a_refusal_for_space_tells_how_much_is_free_where(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (name, *_) = hashes(node, files)
    node.config = (3, [name])
    node.datasets = [
        dataset_document("/m2/a", available_bytes=500),
        dataset_document("/m2/b", state="missing", available_bytes=0),
    ]
    node.refuse(f"PUT /artifacts/{name}", 507, "QuotaExceeded", "no dataset has room")
    ended = cli("--json", "put", files[0])
    assert ended.status == 3
    assert ended.json["error"]["message"].endswith(
        "refused: no dataset has room; free now: 500 B on /m2/a, /m2/b is missing"
    )


# ---- what a refused --add leaves in the config


def test_a_file_that_is_refused_is_taken_out_of_the_config_again(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    other, (first, *rest) = "f" * 64, hashes(node, files)
    node.config = (4, [other])
    node.refuse(f"PUT /artifacts/{first}", 507, "QuotaExceeded", "full")
    ended = cli("--json", "put", "--add", *files)
    assert ended.status == 3
    assert node.config == (6, sorted([other, *rest]))
    assert ended.json["taken_back"] == [first]
    assert ended.json["generation"] == 6
    assert f"taken out of the config again, now generation 6: {first}" in ended.err


def test_what_was_in_the_config_before_stays_in_it(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (first, *_) = hashes(node, files)
    node.config = (4, [first])
    node.refuse(f"PUT /artifacts/{first}", 507, "QuotaExceeded", "full")
    assert cli("put", "--add", files[0]).status == 3
    assert node.config == (4, [first])


def test_what_has_a_copy_all_the_same_stays_in_the_config(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (first, *_) = hashes(node, files)
    node.config = (4, [])
    node.refuse(f"PUT /artifacts/{first}", 503, "TooFewCopies", "1 of 2")

    content = files[0].read_bytes()

    def land(request: str) -> None:
        if request.startswith("PUT /artifacts/"):
            node.hold(content)

    node.before = land
    assert cli("put", "--add", files[0]).status == 3
    assert node.config == (5, [first])


def test_a_config_that_somebody_else_changed_meanwhile_is_left_alone(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    (first, *_) = hashes(node, files)
    node.config = (4, [])
    node.refuse(f"PUT /artifacts/{first}", 507, "QuotaExceeded", "full")

    def meanwhile(request: str) -> None:
        if request == "GET /artifacts":
            node.config = (9, [first, "f" * 64])

    node.before = meanwhile
    ended = cli("--json", "put", "--add", files[0])
    assert ended.status == 3
    assert node.config == (9, [first, "f" * 64])
    assert ended.json["left_in_config"] == [first]
    said = " ".join(ended.err.split())
    assert f"left in the config without a copy: {first}" in said
    assert "depot config set" in said


def test_a_sled_that_is_gone_is_not_asked_and_what_is_left_is_told(
    cli: Cli, node: FakeNode, files: list[Path]
) -> None:
    names = hashes(node, files)
    node.config = (4, [])
    node.breaks_off = {f"PUT /artifacts/{names[1]}"}
    ended = cli("--json", "put", "--add", *files)
    assert ended.status == 4
    assert ended.json["taken_back"] == []
    assert ended.json["left_in_config"] == sorted(names[1:])
    assert node.requests["GET /artifacts"] == 0
    assert "2 hashes left in the config without a copy" in ended.err
