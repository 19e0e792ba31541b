"""Commands against a coordinator that does not answer, and commands that are interrupted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.cli.depot_coordinator import run
from coordinator.client import CoordinatorClient
from coordinator.watching import Watch
from depot.errors import Unreachable
from tests.coordinator.cli.silent import SilentServer
from tests.system.programs import BIN
from tests.system.screens import TIMEOUT_S, read_until, terminal

PROGRAM = BIN / "depot-coordinator"
WATCH = Watch(look_s=0.01, stall_s=0.05)


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with SilentServer() as server:
        yield server


def test_wait_times_out_when_the_coordinator_is_silent(
    silent: SilentServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["wait", "--timeout", "1", "--coordinator", silent.url]) == 5
    assert f"the coordinator at {silent.url} did not say in time" in capsys.readouterr().err


async def test_an_upload_that_does_not_move_is_given_up(silent: SilentServer) -> None:
    async with CoordinatorClient(silent.url, watch=WATCH) as client:
        with pytest.raises(Unreachable, match=r"has not moved for 0\.05 s"):
            await client.upload_release(bytes(4 << 20), file_name="x.zip")
        with pytest.raises(Unreachable, match=r"has not moved for 0\.05 s"):
            await client.import_release("http://127.0.0.1:1/repo")


def test_ctrl_c_while_a_directory_is_packed_leaves_nothing(tmp_path: Path) -> None:
    place, release = tmp_path / "tmp", tmp_path / "release"
    for directory in (place, release / "metadata", release / "targets"):
        directory.mkdir(parents=True)
    (release / "metadata" / "timestamp.json").write_text("{}")
    with (release / "targets" / "large").open("wb") as file:
        file.truncate(16 << 30)
    with terminal(str(PROGRAM), "release", "upload", release, TMPDIR=str(place)) as (child, screen):
        read_until(screen, b"0.1/16.0 GiB")  # it is at it
        child.send_signal(signal.SIGINT)
        assert b"interrupted" in read_until(screen, None)
        assert child.wait(TIMEOUT_S) == 130
    assert list(place.iterdir()) == []
