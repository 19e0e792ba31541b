from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.unit.conftest import Cli
from tests.unit.fake_node import FakeNode

# More than a client buffers, so that what came before a cut has been written.
CONTENT = os.urandom(12 << 20)


@pytest.fixture
def sha256(node: FakeNode) -> str:
    name = node.hold(CONTENT)
    node.config = (1, [name])
    return name


def test_get_writes_the_verified_bytes(cli: Cli, sha256: str, tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    ended = cli("--json", "get", sha256, "-o", target)
    assert ended.status == 0
    assert target.read_bytes() == CONTENT
    assert ended.json == {
        "sha256": sha256,
        "file": str(target),
        "size_bytes": len(CONTENT),
        "resumed_bytes": 0,
    }


def test_get_goes_on_where_a_cut_transfer_stopped(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    node.cut_after = 9 << 20
    target = tmp_path / "artifact"
    assert cli("get", sha256, "-o", target).status == 0
    assert target.read_bytes() == CONTENT
    assert node.ranges[0] is None
    assert node.ranges[1] is not None


def test_a_transfer_that_is_taken_up_again_says_so(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    node.cut_after = 9 << 20
    ended = cli("get", sha256, "-o", tmp_path / "artifact")
    assert ended.status == 0
    assert f"{node.depot_url}: the connection was broken off; going on from " in ended.err


@pytest.mark.parametrize("rate", ["10", "1023", "1000B"])
def test_a_rate_that_can_only_be_a_slip_is_a_usage_error(
    cli: Cli, node: FakeNode, sha256: str, rate: str
) -> None:
    ended = cli("--json", "get", sha256, "--limit-rate", rate)
    assert ended.status == 2
    message = ended.json["error"]["message"]
    assert "expected at least 1KiB in a second" in message
    assert f'"{rate.removesuffix("B")}KiB"' in message
    assert not node.requests


def test_wrong_bytes_end_with_1_and_leave_no_file(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    node.garbage = b"<html>not what was asked for</html>"
    target = tmp_path / "artifact"
    ended = cli("--json", "get", sha256, "-o", target)
    assert ended.status == 1
    assert ended.json["error"]["exit_code"] == 1
    assert "sled-agent scrub start" in ended.json["error"]["hint"]
    assert "changed while it was read" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_wrong_bytes_leave_the_file_that_was_there(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    node.garbage = CONTENT[:-1] + b"?"
    target = tmp_path / "artifact"
    target.write_text("precious")
    assert cli("get", sha256, "-o", target, "--force").status == 1
    assert target.read_text() == "precious"


def test_a_file_that_is_right_already_is_not_fetched(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    (tmp_path / sha256).write_bytes(CONTENT)
    ended = cli("get", sha256, "-o", tmp_path)
    assert ended.status == 0
    assert "was here already" in ended.out
    assert not node.requests


def test_a_prefix_is_looked_up_in_the_sleds_config(cli: Cli, sha256: str, tmp_path: Path) -> None:
    assert cli("get", sha256[:8], "-o", tmp_path).status == 0
    assert (tmp_path / sha256).read_bytes() == CONTENT


def test_a_prefix_that_fits_nothing_is_a_usage_error(cli: Cli, sha256: str, tmp_path: Path) -> None:
    assert cli("get", "0" * 8 if sha256[0] != "0" else "1" * 8, "-o", tmp_path).status == 2


def test_an_artifact_that_is_not_there_is_refused(cli: Cli, tmp_path: Path) -> None:
    ended = cli("get", "f" * 64, "-o", tmp_path)
    assert ended.status == 3
    assert "not here" in ended.err


@pytest.mark.parametrize("typed", [8, 64])
def test_an_artifact_of_which_only_damaged_copies_are_left_is_said_to_be_damaged(
    cli: Cli, node: FakeNode, tmp_path: Path, typed: int
) -> None:
    lost = "e" * 64
    node.config, node.damaged = (1, [lost]), {lost}
    ended = cli("--json", "get", lost[:typed], "-o", tmp_path)
    assert ended.status == 3
    error = ended.json["error"]
    assert error["message"].endswith("refused: not here: both copies are damaged")
    assert error["details"] == {"damaged": 2}
    assert "depot status" in error["hint"]


def test_a_directory_that_is_not_there_is_a_usage_error(
    cli: Cli, sha256: str, tmp_path: Path
) -> None:
    ended = cli("get", sha256, "-o", tmp_path / "missing" / "file")
    assert ended.status == 2
    assert "No such file or directory" in ended.err


def test_the_directory_that_is_not_there_is_named(cli: Cli, sha256: str, tmp_path: Path) -> None:
    ended = cli("get", sha256, "-o", tmp_path / "missing" / "file")
    assert f"{tmp_path / 'missing'}: No such file or directory" in " ".join(ended.err.split())
    assert ".part" not in ended.err


def test_what_is_no_regular_file_is_never_replaced(cli: Cli, sha256: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    ended = cli("get", sha256, "-o", fifo)
    assert ended.status == 2
    assert "expected a regular file" in ended.err
    assert fifo.is_fifo()


def test_a_link_to_what_is_no_regular_file_is_never_replaced(
    cli: Cli, sha256: str, tmp_path: Path
) -> None:
    # As /dev/stdout is.
    link = tmp_path / "link"
    link.symlink_to("/proc/self/fd/1")
    reader, writer = os.pipe()
    before = os.dup(1)
    try:
        os.dup2(writer, 1)
        ended = cli("get", sha256, "-o", link)
    finally:
        os.dup2(before, 1)
        for fd in (reader, writer, before):
            os.close(fd)
    assert ended.status == 2
    assert link.is_symlink()


def test_a_link_to_a_file_is_followed(cli: Cli, sha256: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link"
    link.symlink_to("elsewhere/artifact")
    assert cli("get", sha256, "-o", link).status == 0
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "artifact").read_bytes() == CONTENT


def test_stdout_is_no_file_to_get(cli: Cli, node: FakeNode, sha256: str) -> None:
    ended = cli("get", sha256, "-o", "-")
    assert ended.status == 2
    assert "-o -" in ended.err
    assert not node.requests


def test_a_file_that_is_another_is_not_replaced_unasked(
    cli: Cli, node: FakeNode, sha256: str, tmp_path: Path
) -> None:
    target = tmp_path / "artifact"
    target.write_text("precious")
    ended = cli("get", sha256, "-o", target)
    assert ended.status == 2
    assert "--force" in ended.err
    assert target.read_text() == "precious"
    assert not node.requests


def test_force_replaces_a_file_that_is_another(cli: Cli, sha256: str, tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    target.write_text("not so precious")
    assert cli("get", sha256, "-o", target, "--force").status == 0
    assert target.read_bytes() == CONTENT


def test_an_artifact_that_is_larger_than_allowed_is_not_taken(
    cli: Cli, sha256: str, tmp_path: Path
) -> None:
    ended = cli("get", sha256, "-o", tmp_path, "--max-size", "1MiB")
    assert ended.status == 3
    assert "--max-size" in ended.err
    assert list(tmp_path.iterdir()) == []
    assert cli("get", sha256, "-o", tmp_path, "--max-size", "12MiB").status == 0


def test_a_limited_get_takes_its_time_and_the_right_bytes(
    cli: Cli, sha256: str, tmp_path: Path
) -> None:
    begin_s = time.monotonic()
    assert cli("get", sha256, "-o", tmp_path, "--limit-rate", "12MiB").status == 0
    # Two steps, of a twentieth of a second each, may come at once.
    assert time.monotonic() - begin_s >= 0.85 * (1 - 0.1)
    assert (tmp_path / sha256).read_bytes() == CONTENT


@pytest.mark.parametrize("option", ["--max-size", "--limit-rate"])
def test_a_bound_has_a_unit_that_is_known(cli: Cli, sha256: str, option: str) -> None:
    ended = cli("get", sha256, option, "10 gigs")
    assert ended.status == 2
    assert "expected a size" in ended.err
