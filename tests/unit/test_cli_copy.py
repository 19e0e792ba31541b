from __future__ import annotations

import json

from tests.unit.conftest import Cli
from tests.unit.fake_node import FakeNode, copy_document

ONE, TWO, THREE = (f"{digit}" * 64 for digit in "123")
FROM = ["--from", "http://127.0.0.1:9"]


def test_copy_waits_until_every_copy_has_ended(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    node.copies = [
        [copy_document(ONE, "running", 5, 10), copy_document(TWO, "running", 0, 10)],
        [copy_document(ONE, "succeeded", 10, 10), copy_document(TWO, "running", 5, 10)],
        [copy_document(ONE, "succeeded", 10, 10), copy_document(TWO, "succeeded", 10, 10)],
    ]
    ended = cli("--json", "copy", *FROM, ONE, TWO)
    assert ended.status == 0
    assert [copy["state"] for copy in ended.json["copies"]] == ["succeeded", "succeeded"]
    assert "copying: 20 B in " in ended.err


def test_every_source_is_passed_on_in_order(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE])
    cli("copy", "--no-wait", "--from", "http://a:1/", "--from", "b:2", ONE)
    assert node.started == [(ONE, ["http://a:1", "http://b:2"])]


def test_no_wait_ends_when_the_copy_has_begun(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE])
    ended = cli("--json", "copy", "--no-wait", *FROM, ONE)
    assert ended.status == 0
    assert ended.json == {
        "copies": [{"sha256": ONE, "copy_id": "copy-11111111", "state": "started"}]
    }
    assert node.requests["GET /copies"] == 1, "it does not wait: it looks once"


def test_what_the_sled_has_no_room_for_waits_its_turn(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO, THREE])
    node.max_copies = 2
    done = [copy_document(sha256, "succeeded", 1, 1) for sha256 in (ONE, TWO, THREE)]
    node.copies = [done[:2], done]

    def make_room(request: str) -> None:
        if request == "GET /copies":
            node.max_copies = 3

    node.before = make_room
    assert cli("copy", *FROM, ONE, TWO, THREE).status == 0
    assert [sha256 for sha256, _ in node.started] == [ONE, TWO, THREE]


def test_a_copy_that_fails_is_told_with_its_reason(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    node.copies = [
        [
            copy_document(ONE, "succeeded", 10, 10),
            copy_document(TWO, "failed", 5, 10, error="http://127.0.0.1:9 stalled"),
        ]
    ]
    ended = cli("copy", *FROM, ONE, TWO)
    assert ended.status == 3
    assert "1 of 2 copies failed" in ended.err
    assert "http://127.0.0.1:9 stalled" in ended.err


def test_a_refused_copy_does_not_stop_the_others(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    node.refuse(f"POST /artifacts/{ONE}/copy-from-depot", 502, "DepotCopy", "404 there")
    node.copies = [[copy_document(TWO, "succeeded", 10, 10)]]
    ended = cli("--json", "copy", *FROM, ONE, TWO)
    assert ended.status == 3
    assert [copy["state"] for copy in ended.json["copies"]] == ["failed", "succeeded"]
    assert ended.json["error"]["code"] == "DepotCopy"


def test_a_copy_that_the_sled_forgot_is_not_waited_for(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE])
    node.copies = [[]]
    ended = cli("copy", *FROM, ONE)
    assert ended.status == 3
    assert "no longer lists" in ended.err


def test_a_prefix_is_looked_up_in_the_config(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    cli("copy", "--no-wait", *FROM, TWO[:8])
    assert [sha256 for sha256, _ in node.started] == [TWO]


def test_copy_without_a_source_is_a_usage_error(cli: Cli, node: FakeNode) -> None:
    assert cli("copy", ONE).status == 2
    assert cli("copy", "--from", "ftp://x", ONE).status == 2
    assert cli("copy", *FROM * 17, ONE).status == 2
    assert cli("copy", "--from", "http://x/" + "a" * 2048, ONE).status == 2
    assert not node.requests


def test_copies_lists_them_and_says_why_one_failed(cli: Cli, node: FakeNode) -> None:
    node.copies = [
        [
            copy_document(ONE, "running", 5 << 20, 10 << 20),
            copy_document(TWO, "failed", 0, 10, error="connection refused"),
        ]
    ]
    lines = cli("copies").out.splitlines()
    assert lines[1].split()[:5] == ["111111111111…", "running", "10.0", "MiB", "50%"]
    assert lines[2].endswith("connection refused")
    assert ONE in cli("copies", "--long").out
    assert cli("--json", "copies").json["copies"][1]["error"] == "connection refused"


def test_the_row_of_a_failed_copy_does_not_repeat_its_hash(cli: Cli, node: FakeNode) -> None:
    node.copies = [
        [copy_document(ONE, "failed", 0, None, error=f"no source gave {ONE}: http://b:1: refused")]
    ]
    assert cli("copies").out.splitlines()[1].endswith("  http://b:1: refused")


def test_a_copy_that_was_held_already_is_said_to(cli: Cli, node: FakeNode) -> None:
    node.copies = [[copy_document(ONE, "succeeded", 0, None)]]
    row = cli("copies").out.splitlines()[1]
    assert row.split()[1:4] == ["succeeded", "-", "held"]
    assert row.endswith("  - (held already, nothing fetched)")
    assert "http://127.0.0.1:9" not in row


def test_a_copy_that_was_fetched_names_its_source(cli: Cli, node: FakeNode) -> None:
    node.copies = [[copy_document(ONE, "succeeded", 0, 0), copy_document(TWO, "succeeded", 5, 5)]]
    for row in cli("copies").out.splitlines()[1:]:
        assert row.endswith("  http://127.0.0.1:9")


def test_no_wait_tells_what_has_ended_already(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE, TWO])
    node.copies = [[copy_document(ONE, "succeeded", 0, None)]]
    ended = cli("copy", "--no-wait", *FROM, ONE, TWO)
    assert ended.status == 0
    first, second = ended.out.splitlines()[1:]
    assert first.endswith("held already, nothing fetched)")
    assert second.split()[1] == "started"
    assert node.requests["GET /copies"] == 1


def test_no_wait_fails_with_a_copy_that_has_failed_already(cli: Cli, node: FakeNode) -> None:
    node.config = (1, [ONE])
    node.copies = [[copy_document(ONE, "failed", 0, None, error="it is gone")]]
    assert cli("copy", "--no-wait", *FROM, ONE).status == 3


def test_no_copies_are_said_in_words(cli: Cli) -> None:
    assert cli("copies").out == "no copies\n"


def test_watch_writes_one_json_line_for_each_change(cli: Cli, node: FakeNode) -> None:
    running, done = copy_document(ONE, "running", 5, 10), copy_document(ONE, "succeeded", 10, 10)
    node.copies = [[running], [running], [done], [done]]

    def leave(request: str) -> None:
        if node.requests[request] == 4:
            node.refuse(request, 503, "ShuttingDown", "bye")

    node.before = leave
    ended = cli("--json", "copies", "--watch")
    assert ended.status == 3
    first, second, last = map(json.loads, ended.out.splitlines())
    assert [first["state"], second["state"]] == ["running", "succeeded"]
    assert last["error"]["code"] == "ShuttingDown"
